import { draws, parsePolicy } from '../policies.js'

/** Whether chance has the window of a receipt checked. */
export const run = ({ nonce, receipt, policy }) => ({ checked: draws(parsePolicy(policy), nonce, receipt) })
