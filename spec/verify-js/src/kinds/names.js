import { negotiate, profileKey, providerKey } from '../names.js'

/** Keys of the DHT, or the protocol that two peers speak. */
export function run({ node, bundle, region, shard, ours, theirs, service }) {
  if (node !== undefined) return { profile_key: profileKey(node) }
  if (bundle !== undefined) return { provider_key: providerKey(bundle, region, shard) }
  return { protocol: negotiate(ours, theirs, service) }
}
