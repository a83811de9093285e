import { checkDispute, decide, matterOf } from '../disputes.js'
import { verify, verifyClaimed } from '../envelope.js'
import { readOpening } from '../openings.js'
import { identify } from '../records.js'
import { unlessRefused } from '../refusal.js'

/** When the vectors' records begin. */
const NOW_MS = 1790000000000

/** What a judge decides by what both sides have shown. */
export function run({ dispute, claimed, answered, openings, plea, objection, late }) {
  const claim = verifyClaimed('dispute', dispute)
  const said = plea === undefined ? null : verify('plea', plea, claim.fields.accused)
  const shown = openings.map((one) => unlessRefused(() => readOpening(one))).filter((one) => one !== null)
  const matter = matterOf(claim, [...claimed, ...answered].map(identify), shown, said)
  checkDispute(matter, NOW_MS)
  return decide(matter, objection, late) ?? { open: true }
}
