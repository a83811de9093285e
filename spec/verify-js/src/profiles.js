/** What a node says of itself, whether a person can wait for it, and the value under which both profiles stand in the DHT. */
import { equal } from './bytes.js'
import { decode } from './cbor.js'
import { claimedSigner, verify } from './envelope.js'
import { checkCurrent } from './identity.js'
import { PUBLISHED_BYTES_MAX } from './limits.js'
import { profileKey } from './names.js'
import { demand } from './refusal.js'

/**
 * Returns if `node` itself signed the profile and it is current.
 * @param {import('./envelope.js').Signed} profile
 */
export function checkProfile({ fields, signer }, node, now_ms) {
  demand(equal(signer, node) && equal(fields.node, node), 'bad_signature', 'not signed by the node that it is about')
  checkCurrent(fields.issued_ms, fields.expires_ms, now_ms)
}

/** Whether a person can wait for the node: p95 at most 150 ms, jitter 50 ms, loss 2 %; what was not measured counts as not. */
export function interactive({ rtt_p95_us, jitter_us, loss_ppm }) {
  if (rtt_p95_us === undefined || jitter_us === undefined || loss_ppm === undefined) return false
  return rtt_p95_us <= 150_000 && jitter_us <= 50_000 && loss_ppm <= 20_000
}

/** Returns if `value` may stand in the DHT under `key`. @param {string} key @param {Uint8Array} value */
export function checkPublished(key, value, now_ms) {
  const envelopes = decode(value, PUBLISHED_BYTES_MAX)
  const two =
    Array.isArray(envelopes) && envelopes.length === 2 && envelopes.every((item) => item instanceof Uint8Array)
  demand(two, 'bad_record', 'not a list of two envelopes')
  const node = claimedSigner(envelopes[0])
  const both = [verify('capability-profile', envelopes[0], node), verify('connectivity-profile', envelopes[1], node)]
  for (const profile of both) checkProfile(profile, node, now_ms)
  demand(key === profileKey(node), 'bad_signature', 'the profiles are not of the node that the key names')
}
