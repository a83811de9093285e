import { negotiate, profileKey, providerKey } from '../names.js'
import { population, safeDepth, shardsOf } from '../shards.js'

/** Keys of the DHT, the shards in which nodes stand, or the protocol that two peers speak. */
export function run({ node, bundle, region, shard, depth, found, now_ms, ours, theirs, service }) {
  if (depth !== undefined) return { shards: shardsOf(node, depth, now_ms) }
  if (found !== undefined) {
    return { population: population(shard, found, now_ms), safe_depth: safeDepth(shard, found, now_ms) }
  }
  if (node !== undefined) return { profile_key: profileKey(node) }
  if (bundle !== undefined) return { provider_key: providerKey(bundle, region, shard) }
  return { protocol: negotiate(ours, theirs, service) }
}
