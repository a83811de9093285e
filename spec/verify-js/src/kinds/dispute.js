import { checkDispute, decide, matterOf } from '../disputes.js'
import { verify, verifyClaimed } from '../envelope.js'
import { PLEA_BYTES_MAX } from '../limits.js'
import { readOpening } from '../openings.js'
import { identify } from '../records.js'
import { unlessRefused } from '../refusal.js'

/** When the vectors' records begin. */
const NOW_MS = 1790000000000

/** What a judge decides by what both sides have shown. */
export function run({ dispute, claimed, answered, openings, plea, elsewhere = [], objection, late }) {
  const claim = verifyClaimed('dispute', dispute)
  const read = (one) => verify('plea', one, claim.fields.accused, PLEA_BYTES_MAX)
  const said = plea === undefined ? null : read(plea)
  const shown = openings.map((one) => unlessRefused(() => readOpening(one))).filter((one) => one !== null)
  const others = elsewhere.map(read)
  const matter = matterOf(claim, claimed.map(identify), answered.map(identify), shown, said, others)
  checkDispute(matter, NOW_MS)
  return decide(matter, objection, late) ?? { open: true }
}
