/** From a verdict and receipts to credits: every micro-credit that was claimed is either due or withheld, and names its receipt. */
import { equal, hex } from './bytes.js'
import { demand } from './refusal.js'

/** @typedef {import('./envelope.js').Signed} Signed */

/** The credits that follow, in the order of the findings. @param {any} verdict @param {Signed[]} receipts */
export function settle(verdict, receipts) {
  const known = new Map(receipts.map((receipt) => [hex(receipt.id), receipt]))
  const credits = verdict.findings.flatMap((finding) => creditsOf(finding, known))
  const named = new Set(credits.map(({ receipt }) => hex(receipt)))
  demand(named.size === credits.length, 'bad_record', 'the verdict names one receipt for two members')
  return { credits, ...feeOf(verdict), due_ucr: sum(credits, 'due_ucr'), withheld_ucr: sum(credits, 'withheld_ucr') }
}

/** @param {any} finding @param {Map<string, Signed>} known */
function creditsOf(finding, known) {
  const own = finding.evidence.flatMap((id) => known.get(hex(id)) ?? [])
  const credits = own
    .filter((receipt) => !own.some((other) => contradict(receipt, other)))
    .map((receipt) => creditOf(finding, receipt, known))
  const due = finding.due_for.every((id) => own.some((receipt) => equal(receipt.id, id)))
  demand(due, 'bad_record', 'a receipt that the verdict calls due is missing')
  const sound =
    sum(credits, 'due_ucr') === BigInt(finding.due_ucr) &&
    sum(credits, 'withheld_ucr') === BigInt(finding.withheld_ucr) &&
    credits.every((credit) => credit.due_ucr >= 0n && credit.withheld_ucr >= 0n)
  demand(sound, 'bad_record', "the verdict's sums are not those of its receipts")
  return credits
}

/** Whether two receipts are of one window: nothing was claimed by either. @param {Signed} one @param {Signed} other */
const contradict = (one, other) =>
  !equal(one.id, other.id) &&
  equal(one.fields.order, other.fields.order) &&
  BigInt(one.fields.sequence) === BigInt(other.fields.sequence)

/** @param {any} finding @param {Signed} receipt @param {Map<string, Signed>} known */
function creditOf({ owner, node, due_for }, { id, signer, fields }, known) {
  demand(equal(signer, node), 'bad_record', "the verdict names a receipt that is not the member's own")
  const before = fields.previous && known.get(hex(fields.previous))
  demand(!fields.previous || before !== undefined, 'bad_record', 'the receipt before one that is named is missing')
  const added = BigInt(fields.amount_ucr) - BigInt(before?.fields.amount_ucr ?? 0)
  const due = due_for.some((one) => equal(one, id))
  return { owner, node, receipt: id, due_ucr: due ? added : 0n, withheld_ucr: due ? 0n : added }
}

/**
 * What a committee's members are due, and who bears it: the executor's owner if it lost before them.
 * @param {any} verdict
 */
function feeOf({ policy, outcome, findings }) {
  if (!policy.startsWith('committee')) return { fee_ucr: 0n }
  const fee_ucr = sum(
    findings.filter(({ role }) => role === 'checker'),
    'due_ucr',
  )
  const losers = findings.filter(({ role, standing }) => role === 'executor' && standing === 'refuted')
  const owners = new Map(losers.map(({ owner }) => [hex(owner), owner]))
  const [fee_bearer] = outcome === 'rejected' && owners.size === 1 ? owners.values() : []
  return { fee_ucr, fee_bearer }
}

/** @param {any[]} items @param {string} field */
const sum = (items, field) => items.reduce((total, item) => total + BigInt(item[field]), 0n)
