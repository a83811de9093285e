/** The count that client and executor keep of what was delivered, and must keep alike to agree on each receipt. */
import { WINDOW_TOKENS } from './limits.js'
import { isWithin } from './numerics.js'
import { amountUcr } from './prices.js'
import { demand } from './refusal.js'
import { toNotation } from './notation.js'
import { isDeepStrictEqual } from 'node:util'
import { transcriptNext, transcriptStart } from './transcript.js'

/** Whether a receipt says what the order's price gives for its tokens and those before. @param {any} order @param {any} receipt */
export function isPriced(order, receipt) {
  const tokens = BigInt(receipt.first_token) + BigInt(receipt.tokens)
  const empty = BigInt(receipt.sequence) > 0n && BigInt(receipt.tokens) === 0n
  const usage = { calls: order.calls, input_tokens: order.input_tokens }
  usage[order.entry === 'score' ? 'checked_tokens' : 'output_tokens'] = tokens
  const end = receipt.end === 'cancelled' && empty ? 'yielded' : receipt.end
  return BigInt(amountUcr(order.price, usage, order.planned_tokens, end)) === BigInt(receipt.amount_ucr)
}

/** The client's side of one order. */
export class Delivery {
  #tokens = 0
  #values = []
  #windowStart = 0
  #transcript = null
  /** @type {import('./envelope.js').Signed[]} */
  receipts = []

  /** @param {{order: import('./envelope.js').Signed, price: any, numerics_class: string, salt: Uint8Array}} job */
  constructor(job) {
    this.job = job
  }

  /** A receipt is due before the next piece. */
  get windowFull() {
    return this.#tokens - this.#windowStart >= WINDOW_TOKENS
  }

  get amountUcr() {
    return this.receipts.at(-1)?.fields.amount_ucr ?? 0
  }

  /** One more piece was delivered. @param {{tokens: number, values_micro: number[], piece: Uint8Array}} piece */
  add({ tokens, values_micro, piece }) {
    this.#transcript = transcriptNext(this.#transcript ?? transcriptStart(this.job.salt, this.job.order.id), piece)
    this.#tokens += tokens
    this.#values.push(...values_micro)
  }

  /**
   * A receipt came; refused unless it says exactly what was delivered.
   * @param {import('./envelope.js').Signed} receipt
   */
  receive(receipt) {
    const { end, numerics_class } = receipt.fields
    const expected = toNotation(this.#expected(end))
    if (isWithin(numerics_class, this.job.numerics_class)) expected.numerics_class = numerics_class
    const same = isDeepStrictEqual(toNotation(receipt.fields), expected)
    demand(same, 'bad_record', 'the receipt does not match what was delivered')
    this.receipts.push(receipt)
    this.#values = []
    this.#windowStart = this.#tokens
  }

  /** @param {string} end */
  #expected(end) {
    const { order, price, numerics_class } = this.job
    const { calls, input_tokens, planned_tokens, entry } = order.fields
    const delivered = entry === 'score' ? { checked_tokens: this.#tokens } : { output_tokens: this.#tokens }
    const empty = this.receipts.length > 0 && this.#tokens === this.#windowStart
    const counted = end === 'cancelled' && empty ? 'yielded' : end
    return {
      order: order.id,
      sequence: this.receipts.length,
      previous: this.receipts.at(-1)?.id,
      first_token: this.#windowStart,
      tokens: this.#tokens - this.#windowStart,
      transcript: this.#transcript ?? order.id,
      values_micro: this.#values,
      numerics_class,
      amount_ucr: amountUcr(price, { calls, input_tokens, ...delivered }, planned_tokens, counted),
      end,
    }
  }
}
