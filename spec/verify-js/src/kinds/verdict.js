import { gather } from '../cases.js'
import { readOpening } from '../openings.js'
import { parsePolicy } from '../policies.js'
import { identify } from '../records.js'
import { unlessRefused } from '../refusal.js'
import { judge } from '../verdicts.js'

/** The verdict that the evidence supports, without the reasons. */
export function run({ client, bundle, policy, nonce, anchors, records, openings }) {
  const question = { client, bundle, text: policy, policy: parsePolicy(policy), nonce, anchors }
  return { fields: judge(gather(question, readAll(identify, records), readAll(readOpening, openings))) }
}

/** What is not what it should be is left out. @template T @param {(encoded: Uint8Array) => T} read @returns {T[]} */
const readAll = (read, encoded) => encoded.map((one) => unlessRefused(() => read(one))).filter((one) => one !== null)
