/** What a job costs under a price list: whole micro-credits, counted alike by both sides. */
import { WINDOW_TOKENS } from './limits.js'

/**
 * What is owed for `usage`. A job that is not complete pays its start (calls and input) in proportion to the tokens
 * delivered of those planned, rounded down; one that its client cancelled, one call and one window of input at least.
 * @param {any} price
 * @param {any} usage
 * @param {number | bigint} planned_tokens
 * @param {string} end
 */
export function amountUcr(price, usage, planned_tokens, end) {
  const atMost = (count, most) => (BigInt(usage[count] ?? 0) < most ? BigInt(usage[count] ?? 0) : most)
  const times = (count, rate) => BigInt(usage[count] ?? 0) * BigInt(price[rate])
  let start = times('calls', 'call_ucr') + times('input_tokens', 'input_token_ucr')
  if (end !== 'final') {
    const [planned, delivered] = [
      BigInt(planned_tokens),
      BigInt(usage.output_tokens ?? 0) + BigInt(usage.checked_tokens ?? 0),
    ]
    start = (start * (delivered < planned ? delivered : planned)) / (planned > 1n ? planned : 1n)
  }
  if (end === 'cancelled') {
    const least =
      atMost('calls', 1n) * BigInt(price.call_ucr) +
      atMost('input_tokens', BigInt(WINDOW_TOKENS)) * BigInt(price.input_token_ucr)
    start = start > least ? start : least
  }
  return start + times('output_tokens', 'output_token_ucr') + times('checked_tokens', 'checked_token_ucr')
}
