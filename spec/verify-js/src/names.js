/** Keys of the DHT, protocol ids, and the version that two peers speak. */
import { cid } from './identity.js'
import { demand } from './refusal.js'
import { base64url } from './text-forms.js'

/** @param {Uint8Array} node */
export const profileKey = (node) => `/fallow/${base64url(node)}`

/** @param {Uint8Array} bundle @param {string} region @param {number} shard */
export const providerKey = (bundle, region, shard) => `serve/${cid(bundle)}/${region}/${shard}`

/**
 * The newest protocol of a service that both sides speak.
 * @param {string[]} ours
 * @param {string[]} theirs
 * @param {string} service
 */
export function negotiate(ours, theirs, service) {
  const spoken = (protocols) =>
    protocols.flatMap((protocol) => (serviceOf(protocol) === service ? [versionOf(protocol)] : []))
  const common = spoken(ours).filter((version) => spoken(theirs).includes(version))
  demand(common.length > 0, 'protocol_unsupported', 'the two speak no version in common')
  return `/fallow/${service}/${Math.max(...common)}`
}

const PROTOCOL = /^\/fallow\/(?<service>[a-z]{1,16})\/(?<version>[1-9][0-9]{0,3})$/
/** @param {string} protocol */
const serviceOf = (protocol) => PROTOCOL.exec(protocol)?.groups.service
/** @param {string} protocol */
const versionOf = (protocol) => Number(PROTOCOL.exec(protocol).groups.version)
