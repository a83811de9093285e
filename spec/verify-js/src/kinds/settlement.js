import { verifyClaimed } from '../envelope.js'
import { settle } from '../settlement.js'

/** The credits that follow from a verdict. */
export const run = ({ verdict, receipts }) =>
  settle(
    verifyClaimed('verdict', verdict).fields,
    receipts.map((receipt) => verifyClaimed('receipt', receipt)),
  )
