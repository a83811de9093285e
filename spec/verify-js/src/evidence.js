/** Faults that prove themselves: signed records that no honest signer can have signed all of. */
import { equal, hex } from './bytes.js'
import { encode } from './cbor.js'
import { overLent } from './feeders.js'
import { checkIssued } from './identity.js'
import { channelsCollide, retracts } from './vouchers.js'

/** Of what one signer may sign but one, what makes it the same one: two that differ are equivocation. */
const SLOTS = {
  accept: ['order'],
  receipt: ['order', 'sequence'],
  attestation: ['order'],
  mandate: ['node', 'epoch'],
  issuer: ['epoch'],
  'capability-profile': ['sequence'],
  'connectivity-profile': ['sequence'],
  plea: ['dispute'],
  'shed-order': ['zone', 'event', 'sequence'],
}

/** @typedef {import('./envelope.js').Signed} Signed */

/**
 * The fault that the records prove, all of them together, and of whom; null if they prove none. Refuses a mandate that was not
 * issued by the owner whom it names.
 * @param {Signed[]} records
 */
export function prove(records) {
  for (const signed of records) if (signed.record === 'mandate') checkIssued(signed, signed.fields.not_before_ms)
  return equivocation(records) ?? retraction(records) ?? twoOwners(records) ?? overLending(records)
}

/** @param {Signed[]} records */
function equivocation(records) {
  const [one, other] = records
  if (records.length !== 2 || one.record !== other.record || sameFields(one, other)) return null
  const accused = one.signer
  if (!equal(accused, other.signer)) return null
  const differ = one.record === 'channel' ? channelsCollide(one, other) : sameSlot(one, other)
  return differ ? { fault: 'equivocation', accused } : null
}

/** @param {Signed[]} records */
function retraction(records) {
  const [one, other] = records
  if (records.length !== 2 || one.record !== other.record) return null
  const proven =
    (one.record === 'voucher' && retracts(one, other)) || (one.record === 'feeder-roster' && rostersCollide(one, other))
  return proven ? { fault: 'retraction', accused: one.signer } : null
}

/** Two profiles of one node, each naming the mandate of another owner, in one epoch. @param {Signed[]} records */
function twoOwners(records) {
  const profiles = records.filter(({ record }) => record === 'capability-profile')
  const mandates = records.filter(({ record }) => record === 'mandate')
  const ids = new Set(mandates.map(({ id }) => hex(id)))
  if (records.length !== 4 || profiles.length !== 2 || mandates.length !== 2 || ids.size !== 2) return null
  if (new Set(profiles.map(({ fields }) => hex(fields.mandate))).size !== 2) return null
  if (!profiles.every(({ fields }) => ids.has(hex(fields.mandate)))) return null
  const nodes = [...profiles.map(({ signer }) => signer), ...mandates.map(({ fields }) => fields.node)]
  const [one, other] = mandates
  const together = nodes.every((node) => equal(node, nodes[0])) && one.fields.epoch === other.fields.epoch
  return together && !equal(one.fields.owner, other.fields.owner) ? { fault: 'two-owners', accused: nodes[0] } : null
}

/** A roster, and leases of one lender that exceed its share. @param {Signed[]} records */
function overLending(records) {
  const rosters = records.filter(({ record }) => record === 'feeder-roster')
  const leases = records.filter(({ record }) => record === 'feeder-lease')
  const lenders = new Set(leases.map(({ signer }) => hex(signer)))
  if (rosters.length !== 1 || lenders.size !== 1 || rosters.length + leases.length !== records.length) return null
  const accused = leases[0].signer
  return overLent(leases, rosters[0], accused).length > 0 ? { fault: 'over-lent', accused } : null
}

/** Whether no honest grid key signs both rosters: they overlap in time, or the later one has no higher epoch. */
function rostersCollide(a, b) {
  if (!equal(a.signer, b.signer) || a.fields.feeder !== b.fields.feeder || sameFields(a, b)) return false
  const rank = ({ fields }) => [BigInt(fields.not_before_ms), BigInt(fields.epoch)]
  const [[aStart, aEpoch], [bStart, bEpoch]] = [rank(a), rank(b)]
  const inOrder = aStart < bStart || (aStart === bStart && aEpoch <= bEpoch)
  const [earlier, later] = inOrder ? [a.fields, b.fields] : [b.fields, a.fields]
  return BigInt(later.not_before_ms) < BigInt(earlier.expires_ms) || BigInt(later.epoch) <= BigInt(earlier.epoch)
}

/** @param {Signed} a @param {Signed} b */
const sameFields = (a, b) => equal(encode(a.fields), encode(b.fields))

/** @param {Signed} a @param {Signed} b */
function sameSlot(a, b) {
  const slot = SLOTS[a.record]
  const named = ({ fields }) => encode(slot.map((name) => fields[name]))
  return slot !== undefined && equal(named(a), named(b))
}
