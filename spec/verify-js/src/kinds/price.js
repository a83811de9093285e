import { amountUcr } from '../prices.js'

/** What is owed. */
export const run = ({ price, usage, planned_tokens, end }) => ({
  amount_ucr: amountUcr(price, usage, planned_tokens, end),
})
