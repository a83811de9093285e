import { equal } from '../bytes.js'
import { verifyClaimed } from '../envelope.js'
import { prove } from '../evidence.js'
import { identify } from '../records.js'
import { demand } from '../refusal.js'

/** Whether the enclosed records prove what the evidence says. */
export function run({ evidence }) {
  const { fault, accused, records } = verifyClaimed('evidence', evidence).fields
  const proven = prove(records.map(identify))
  const borneOut = proven !== null && proven.fault === fault && equal(proven.accused, accused)
  demand(borneOut, 'bad_record', 'the records do not prove the fault that the evidence names')
  return proven
}
