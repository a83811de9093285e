import { checkOrder } from '../orders.js'
import { fit } from '../schema.js'

/** Holds an order against a node's terms. */
export function run({ order, terms, now_ms }) {
  checkOrder(fit('job-order', order), terms, now_ms)
  return {}
}
