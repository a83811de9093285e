import { amountUcr } from '../prices.js'

/** What is owed. */
export const run = ({ price, usage, planned_tokens, complete }) => ({
  amount_ucr: amountUcr(price, usage, planned_tokens, complete),
})
