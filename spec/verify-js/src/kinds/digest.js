import { checkCommitment, saltedDigest } from '../transcript.js'

/** What is committed to, from what is committed. */
export function run({ salt, plaintext, nonce, policy }) {
  if (policy !== undefined) return { commitment: checkCommitment(nonce, policy) }
  return { digest: saltedDigest(salt, plaintext) }
}
