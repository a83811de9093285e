/** What a dispute between the two sides of an order comes to. */
import { isDeepStrictEqual } from 'node:util'
import { equal, hex } from './bytes.js'
import { lonePart } from './cases.js'
import { HOLD_MS_MAX, SKEW_MS } from './limits.js'
import { demand } from './refusal.js'
import { checkCommitment } from './transcript.js'
import { sums } from './vouchers.js'

/** @typedef {import('./envelope.js').Signed} Signed */

const BY_PAYER = ['wrong', 'two-faced', 'disowned']
const HEARD = ['disowned', 'unpaid', 'mismatched', 'unopened']

/**
 * The matter that the claimant's records make; what the accused shows counts where an answer is owed.
 * @param {Signed} dispute
 * @param {Signed[]} claimed
 * @param {Signed[]} answered
 * @param {any[]} openings
 * @param {Signed | null} plea
 * @param {Signed[]} elsewhere what other judges have heard of the accused
 */
export function matterOf(dispute, claimed, answered, openings, plea, elsewhere) {
  const said = [...(plea === null ? [] : [plea]), ...elsewhere]
  const own = ({ fields, signer }) => equal(fields.dispute, dispute.id) && equal(signer, dispute.fields.accused)
  demand(said.every(own), 'bad_record', "the plea is not the accused's")
  const heard = HEARD.includes(dispute.fields.kind)
  const byId = new Map(claimed.map((signed) => [hex(signed.id), signed]))
  const all = [...new Map([...(heard ? answered : []), ...claimed].map((signed) => [hex(signed.id), signed])).values()]
  const get = (id, record) => {
    const found = byId.get(hex(id))
    return found?.record === record ? found : undefined
  }
  const order = get(dispute.fields.order, 'job-order')
  const receipt = get(dispute.fields.receipt, 'receipt')
  demand(order !== undefined && receipt !== undefined, 'bad_record', 'order or receipt is missing')
  const channel = get(order.fields.channel, 'channel')
  const theirs = channel && equal(channel.signer, order.signer) && equal(channel.fields.payee, order.fields.executor)
  demand(theirs === true, 'bad_record', "the order's channel is missing")
  const manifest = get(order.fields.bundle, 'manifest')
  demand(manifest !== undefined, 'unknown_bundle', 'the manifest is missing')
  const later = ({ record, fields }) =>
    record === 'receipt' && equal(fields.order, order.id) && BigInt(fields.sequence) > BigInt(receipt.fields.sequence)
  const upto = [...byId.values()].filter((signed) => !later(signed))
  const part = lonePart(order, upto, openings)
  const ends = part.receipts.some(({ id }) => equal(id, receipt.id))
  demand(ends, 'bad_record', "the receipt ends no unbroken chain at the order's price")
  const twice = heard && said.some((one) => !isDeepStrictEqual(one.fields, said[0].fields))
  const { tolerance } = manifest.fields
  return { dispute, order, receipt, plea: heard ? plea : null, twice, part, all, openings, tolerance }
}

/** Whose claim it may be, and when. @param {any} matter @param {number} now_ms */
export function checkDispute({ dispute, order, receipt }, now_ms) {
  const sides = [order.signer, order.fields.executor]
  const [claimant, accused] = BY_PAYER.includes(dispute.fields.kind) ? sides : sides.reverse()
  const between = equal(dispute.signer, claimant) && equal(dispute.fields.accused, accused)
  demand(between, 'bad_record', 'not between the two sides of its order')
  const inProportion = BigInt(dispute.fields.fee_ucr) <= BigInt(receipt.fields.amount_ucr)
  demand(inProportion, 'bad_record', 'the fee is above what the receipt says')
  const oldest = BigInt(now_ms) - BigInt(HOLD_MS_MAX) - BigInt(SKEW_MS)
  demand(BigInt(order.fields.created_ms) >= oldest, 'expired', 'the order is too old')
  const [opened, skew] = [BigInt(dispute.fields.opened_ms), BigInt(SKEW_MS)]
  const since = opened >= BigInt(order.fields.created_ms) - skew && opened <= BigInt(now_ms) + skew
  demand(since, 'expired', 'it was opened before its order, or in time to come')
}

/** The decision without its reason; null while the accused may still answer. @param {any} matter */
export function decide(matter, objection, late) {
  const { dispute, receipt, plea, twice } = matter
  const { kind, accused, fee_ucr } = dispute.fields
  const silent = HEARD.includes(kind) && plea === null
  if (silent && !late && !twice) return null
  const lost = [true, true]
  const [upheld, stands, free] = twice ? lost : silent ? (SILENT[kind] ?? lost) : RULES[kind](matter, objection)
  const amount = receipt.fields.amount_ucr
  return {
    outcome: upheld ? 'upheld' : 'dismissed',
    loser: upheld ? accused : dispute.signer,
    due_ucr: stands === true ? amount : 0,
    withheld_ucr: stands === false ? amount : 0,
    fee_ucr: free ? 0 : fee_ucr,
  }
}

/** Whose silence does not lose. */
const SILENT = { disowned: [false, null, true] }

/** Of each kind: whether it is upheld, whether the receipts are due (null: not asked), whether nobody bears a fee. */
const RULES = {
  wrong: ({ part }, objection) => {
    if (!part.asked) return [false, true]
    if (!part.opened || objection === undefined) return [false, null]
    return objection ? [true, false] : [false, true]
  },
  'two-faced': (matter) => (contradicts(matter) ? [true, false] : [false, true]),
  disowned: ({ plea }) => [plea.fields.says !== 'owns', true],
  unpaid: (matter, objection) => {
    if (isPaid(matter)) return [false, true, true]
    if (isBorneOut(matter) || !matter.part.asked) return [true, true]
    if (objection === undefined) return hasArrived(matter) ? [true, true] : [false, null, true]
    return objection ? [false, false] : [true, true]
  },
  mismatched: ({ part }) => (part.asked ? [false, null] : [true, true]),
  unopened: (matter) => (isOpened(matter) ? [false, null] : [true, true]),
}

const signedBy = ({ all }, record, signer) => all.filter((one) => one.record === record && equal(one.signer, signer))

function isOpened(matter) {
  const { commitment_nonce, policy } = matter.plea.fields
  const fits = (nonce, text) => equal(checkCommitment(nonce, text), matter.order.fields.check_commitment)
  if (commitment_nonce !== undefined && policy !== undefined) return fits(commitment_nonce, policy)
  const verdicts = signedBy(matter, 'verdict', matter.order.signer)
  return verdicts.some(({ fields }) => fits(fields.commitment_nonce, fields.policy))
}

/** Vouchers that name the receipt, or a later one of its order. */
function vouchersOf(matter) {
  const { order, receipt } = matter
  const named = signedBy(matter, 'receipt', order.fields.executor)
    .filter(({ fields }) => equal(fields.order, order.id) && BigInt(fields.sequence) >= BigInt(receipt.fields.sequence))
    .map(({ id }) => hex(id))
  return signedBy(matter, 'voucher', order.signer).filter(
    ({ fields }) => equal(fields.channel, order.fields.channel) && named.includes(hex(fields.receipt)),
  )
}

/** Whether one of them promises at least as much. */
const isPaid = (matter) =>
  vouchersOf(matter).some(
    ({ fields }) => sums(fields).due + sums(fields).held >= BigInt(matter.receipt.fields.amount_ucr),
  )

/** Whether the payer has signed what it signs only about what came. */
function hasArrived(matter) {
  const { order, receipt } = matter
  const named = signedBy(matter, 'job-order', order.signer).flatMap(({ fields }) => [
    fields.checks,
    fields.continues?.receipt,
  ])
  return vouchersOf(matter).length > 0 || named.some((id) => id !== undefined && equal(id, receipt.id))
}

/** Whether the payer itself has signed that the receipt is due. */
function isBorneOut(matter) {
  const findings = signedBy(matter, 'verdict', matter.order.signer).flatMap(({ fields }) => fields.findings)
  return findings.some(({ due_for }) => due_for.some((id) => equal(id, matter.receipt.id)))
}

function contradicts(matter) {
  const { part, order, tolerance, all, openings } = matter
  if (part.equivocal.some(({ record }) => record === 'attestation')) return true
  const others = signedBy(matter, 'job-order', order.signer).filter(
    ({ id, fields }) => !equal(id, order.id) && equal(fields.executor, order.fields.executor),
  )
  return others.some((other) => apart(part, lonePart(other, all, openings), tolerance))
}

/** Whether two findings about the same tokens cannot both be the model's. */
function apart(one, other, tolerance) {
  const [mine, theirs] = [one, other].map(({ order }) => order.fields)
  const sampling = ({ max_tokens, ...rest }) => rest
  const same =
    mine.entry === 'score' &&
    theirs.entry === 'score' &&
    equal(mine.bundle, theirs.bundle) &&
    isDeepStrictEqual(sampling(mine.parameters), sampling(theirs.parameters))
  if (!same || !one.opened || !other.opened || !one.attestation || !other.attestation) return false
  if (!isDeepStrictEqual(one.opened.work, other.opened.work)) return false
  const bounds = [
    ['values_micro', tolerance.value_micro, Number],
    ['gaps_micro', tolerance.gap_micro, Number],
    ['masses_ppm', tolerance.mass_ppm, (mass) => Math.max(0, Number(mass) - Number(mine.parameters.top_p_ppm))],
  ]
  return bounds.some(([name, most, of]) => {
    const [a, b] = [one, other].map(({ attestation }) => attestation.fields[name].map(of))
    return a.length !== b.length || a.some((figure, n) => Math.abs(figure - b[n]) > Number(most))
  })
}
