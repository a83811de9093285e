import { verify, verifyClaimed } from '../envelope.js'
import { Delivery } from '../receipts.js'

/** Plays a job's deliveries to the client: a receipt for each window that is full, and one at the end. */
export function run(input) {
  const order = verifyClaimed('job-order', input.order)
  const delivery = new Delivery({ order, price: input.price, numerics_class: input.class, salt: input.salt })
  const receipts = input.receipts.map((envelope) => verify('receipt', envelope, order.fields.executor))
  const due = receipts.values()
  for (const piece of input.pieces) {
    if (delivery.windowFull) delivery.receive(due.next().value)
    delivery.add(piece)
  }
  for (const receipt of due) delivery.receive(receipt)
  return { amount_ucr: delivery.amountUcr }
}
