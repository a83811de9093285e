import { gather } from '../cases.js'
import { readOpening } from '../openings.js'
import { parsePolicy } from '../policies.js'
import { identify } from '../records.js'
import { judge } from '../verdicts.js'

/** The verdict that the evidence supports, without the reasons. */
export function run({ client, bundle, policy, nonce, anchors, records, openings }) {
  const question = { client, bundle, text: policy, policy: parsePolicy(policy), nonce, anchors }
  return { fields: judge(gather(question, records.map(identify), openings.map(readOpening))) }
}
