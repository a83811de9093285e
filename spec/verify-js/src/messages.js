/** One frame, one message: a map with its kind under `t`. */
import { decode } from './cbor.js'
import { MESSAGE_BYTES_MAX, MESSAGE_ENTRIES_MAX } from './limits.js'
import { Refusal } from './refusal.js'
import { fit, rule } from './schema.js'

/** The kind on the wire -> the rule of its fields, as the rule `message` lists them. */
const KINDS = new Map(rule('message').options.map(({ name }) => [kindOf(rule(name)), name]))

/** @param {Uint8Array} frame @returns {{kind: string, fields: any}} */
export function readMessage(frame) {
  const value = decode(frame, MESSAGE_BYTES_MAX, MESSAGE_ENTRIES_MAX)
  const kind = value?.constructor === Object && Object.hasOwn(value, 't') ? value.t : null
  const name = KINDS.get(kind)
  if (name === undefined) throw new Refusal('bad_encoding', 'not a message of this protocol')
  const { t, ...fields } = fit(name, value)
  return { kind: t, fields }
}

/** @param {any} map */
function kindOf(map) {
  return map.members.find((member) => member.key === 't').of.value
}
