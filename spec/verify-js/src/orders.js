/** What an executor holds an order against when it arrives, cheap checks first. */
import { equal } from './bytes.js'
import { encode } from './cbor.js'
import { SKEW_MS } from './limits.js'
import { demand } from './refusal.js'

/**
 * Returns if a node on these terms runs this order now.
 * @param {any} order
 * @param {any} terms
 * @param {number | bigint} now_ms
 */
export function checkOrder(order, terms, now_ms) {
  const offered = terms.bundles.filter(([bundle]) => equal(bundle, order.bundle))
  const age = BigInt(now_ms) - BigInt(order.created_ms)
  demand(equal(order.executor, terms.node), 'wrong_executor', 'the order is for another executor')
  demand(-SKEW_MS <= age && age <= SKEW_MS, 'expired', 'signed at a time that is not now')
  demand(offered.length > 0, 'unknown_bundle', 'this node does not serve the bundle')
  demand(
    offered.some(([, entry]) => entry === order.entry),
    'unknown_entry',
    'the bundle is served without this entry',
  )
  const { price } = order
  const agreed_price = terms.prices.some((one) => equal(encode(one), encode(price)))
  const own = equal(price.bundle, order.bundle) && price.entry === order.entry
  demand(agreed_price && own, 'stale_prices', "it names another price than this node's")
  demand(equal(order.worker_key, terms.worker_key), 'stale_worker_key', 'sealed to a worker that has gone')
  const withheld = order.held_ppm <= (terms.held_ppm_max ?? 0) && order.hold_ms <= (terms.hold_ms_max ?? 0)
  demand(withheld, 'bad_terms', 'it would hold back more pay, or for longer, than this node allows')
  const agreed = order.candidates.every((owner) => (terms.arbiters ?? []).some((arbiter) => equal(arbiter, owner)))
  demand(agreed, 'bad_terms', "a committee's candidate to whom this node has not agreed")
}
