import { priceListId } from '../prices.js'
import { checkCommitment, saltedDigest } from '../transcript.js'

/** What is committed to, from what is committed. */
export function run({ salt, plaintext, nonce, policy, prices }) {
  if (prices !== undefined) return { price_list: priceListId(prices) }
  if (policy !== undefined) return { commitment: checkCommitment(nonce, policy) }
  return { digest: saltedDigest(salt, plaintext) }
}
