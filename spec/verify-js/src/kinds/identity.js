import { cid, cidHash, didKey, peerId, peerKey } from '../identity.js'

/** Keys and hashes to their text forms and back. */
export function run({ peer_id, cid: text, key, hash }) {
  if (peer_id !== undefined) return { key: peerKey(peer_id) }
  if (text !== undefined) return { hash: cidHash(text) }
  return key !== undefined ? { peer_id: peerId(key), did_key: didKey(key) } : { cid: cid(hash) }
}
