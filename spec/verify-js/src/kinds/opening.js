import { verify, verifyClaimed } from '../envelope.js'
import { open, readOpening } from '../openings.js'

/** Holds an opening against its order and the receipts under it. */
export function run({ order: envelope, receipts, opening }) {
  const order = verifyClaimed('job-order', envelope)
  const read = receipts.map((receipt) => verify('receipt', receipt, order.fields.executor))
  return open(readOpening(opening), order, read)
}
