/** Vouchers and channels as promises: which voucher follows which, and when two prove that their payer equivocates. */
import { equal } from './bytes.js'
import { encode } from './cbor.js'

/** A voucher's sums and time as BigInt. @param {any} fields */
export function sums(fields) {
  const [due, held, forfeited] = [fields.due_ucr, fields.held_ucr, fields.forfeited_ucr].map(BigInt)
  return { due, held, forfeited, release: BigInt(fields.release_at_ms), promised: due + held + forfeited }
}

/** Whether `later` takes back nothing that `earlier` promised. @param {any} later @param {any} earlier */
export function follows(later, earlier) {
  const [after, before] = [sums(later), sums(earlier)]
  if (after.due < before.due || after.forfeited < before.forfeited) return false
  const kept = after.release > before.release ? after.due + after.forfeited : after.promised
  return kept >= before.promised
}

/**
 * Whether two vouchers prove that their payer takes back what it promised.
 * @param {import('./envelope.js').Signed} a
 * @param {import('./envelope.js').Signed} b
 */
export function retracts(a, b) {
  const same = equal(a.signer, b.signer) && equal(a.fields.channel, b.fields.channel)
  return same && !follows(a.fields, b.fields) && !follows(b.fields, a.fields)
}

/**
 * Whether two channels of one payer share payee and nonce, and differ.
 * @param {import('./envelope.js').Signed} a
 * @param {import('./envelope.js').Signed} b
 */
export function channelsCollide(a, b) {
  const slot = ({ signer, fields }) => encode([signer, fields.payee, fields.nonce])
  return equal(slot(a), slot(b)) && !equal(encode(a.fields), encode(b.fields))
}
