/** Vouchers and channels as promises: which voucher follows which, and when two prove that their payer equivocates. */
import { equal } from './bytes.js'
import { encode } from './cbor.js'

/** @typedef {{ucr: bigint, release: bigint}} Part */

/** A voucher's sums and parts as BigInt. @param {any} fields */
export function sums(fields) {
  const [due, forfeited] = [fields.due_ucr, fields.forfeited_ucr].map(BigInt)
  /** @type {Part[]} */
  const parts = fields.held.map((part) => ({ ucr: BigInt(part.ucr), release: BigInt(part.release_at_ms) }))
  const held = heldAfter(parts)
  return { due, held, forfeited, parts, promised: due + held + forfeited }
}

/** What falls due after a time; of all parts without one. @param {Part[]} parts */
export const heldAfter = (parts, at = -1n) =>
  parts.reduce((sum, { ucr, release }) => (release > at ? sum + ucr : sum), 0n)

/** Whether `later` takes back nothing that `earlier` promised. @param {any} later @param {any} earlier */
export function follows(later, earlier) {
  const [after, before] = [sums(later), sums(earlier)]
  const gone = (voucher, at) => voucher.promised - heldAfter(voucher.parts, at)
  const times = [0n, ...before.parts.map(({ release }) => release)]
  return after.due >= before.due && times.every((at) => gone(after, at) >= gone(before, at))
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
