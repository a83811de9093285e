/**
 * What a member of a feeder may draw. Each is bound by every lease that it signed, and gains by those that it holds.
 * All times are BigInt.
 */
import { compare, equal, hex } from './bytes.js'
import { encode } from './cbor.js'
import { during, possibleInstants } from './grid.js'
import { LEASES_MAX, SKEW_MS } from './limits.js'
import { demand, Refusal } from './refusal.js'

const SKEW = BigInt(SKEW_MS)

/** @typedef {import('./envelope.js').Signed} Signed */

/** Returns if the roster is the feeder's, signed by its grid key, and not over. @param {Signed} roster */
export function checkRoster({ fields, signer }, grid_key, feeder, now) {
  demand(equal(signer, grid_key), 'bad_signature', "not signed by the feeder's grid key")
  demand(fields.feeder === feeder, 'unknown_roster', 'the roster is that of another feeder')
  demand(now < BigInt(fields.expires_ms) + SKEW, 'expired', 'the roster is over')
}

/**
 * Returns if one member of the roster lends to another what it has, as far as these known leases say.
 * @param {Signed} lease
 * @param {Signed} roster
 * @param {Signed[]} known
 * @param {bigint} now
 */
export function checkLease(lease, roster, known, now) {
  const problem = objection(lease, roster)
  if (problem) throw problem
  demand(now < BigInt(lease.fields.expires_ms) + SKEW, 'expired', 'the lease is over')
  const proof = overLent([...known, lease], roster, lease.signer)
  demand(proof.length === 0, 'over_lent', 'more than the guaranteed share is lent')
}

/**
 * The fewest leases that prove, with the roster, that the lender lent more than its share; none if it did not.
 * @param {Signed[]} leases
 * @param {Signed} roster
 * @param {Uint8Array} lender
 */
export function overLent(leases, roster, lender) {
  const share = shareOf(roster, lender)
  const valid = leases.filter((lease) => equal(lease.signer, lender) && objection(lease, roster) === null)
  const proof = []
  for (const lease of overdrawn(distinct(valid), share).sort(larger)) {
    proof.push(lease)
    if (tooMuch(proof, share)) break
  }
  return proof
}

/**
 * The most that the member may draw, in watts.
 * @param {Signed[]} rosters
 * @param {Signed[]} leases
 * @param {Uint8Array} member
 * @param {bigint} now
 */
export function allowance(rosters, leases, member, now) {
  const standing = rosters.flatMap((roster) => standingLeases(roster, leases, member))
  const bounds = [...standing, ...rosters].flatMap(({ fields }) => [
    BigInt(fields.not_before_ms),
    BigInt(fields.expires_ms),
  ])
  return Math.min(...possibleInstants(bounds, now).map((at) => allowanceAt(rosters, standing, member, at)))
}

/** Leases of the roster that count for `member`: of those who lent more than they have, only its own. */
function standingLeases(roster, leases, member) {
  const fit = distinct(leases.filter((lease) => objection(lease, roster) === null))
  const liars = new Set(
    fit
      .map(({ signer }) => signer)
      .filter((lender) => overLent(fit, roster, lender).length > 0)
      .map(hex),
  )
  return fit.filter(({ signer }) => equal(signer, member) || !liars.has(hex(signer)))
}

/** Were `at` the true time; should rosters overlap, by the strictest. */
function allowanceAt(rosters, leases, member, at) {
  const inForce = ({ fields }) => during(fields.not_before_ms, at, fields.expires_ms)
  const left = rosters.filter(inForce).map((roster) => {
    const here = leases.filter((lease) => inForce(lease) && equal(lease.fields.roster, roster.id))
    const lent = here.filter(({ fields }) => equal(fields.lender, member))
    const borrowed = here.filter(({ fields }) => equal(fields.borrower, member))
    return Math.max(0, shareOf(roster, member) - watts(lent) + watts(borrowed))
  })
  return left.length > 0 ? Math.min(...left) : 0
}

/**
 * Why the lease binds nobody under the roster, whatever else was lent; or null.
 * @param {Signed} lease
 * @param {Signed} roster
 */
function objection({ signer, fields }, roster) {
  const { members, not_before_ms, expires_ms } = roster.fields
  if (!equal(signer, fields.lender)) return new Refusal('bad_signature', 'not signed by its lender')
  if (!equal(fields.roster, roster.id)) return new Refusal('unknown_roster', 'the lease is of another roster')
  const both = [fields.lender, fields.borrower].every((key) => members.some((member) => equal(member.key, key)))
  if (!both) return new Refusal('bad_record', 'not between two members of the roster')
  const within =
    BigInt(fields.not_before_ms) >= BigInt(not_before_ms) && BigInt(fields.expires_ms) <= BigInt(expires_ms)
  return within ? null : new Refusal('bad_record', 'not within the time of its roster')
}

/**
 * One of each: a lease that is signed twice is one lease, and the one whose id comes first stands for both.
 * @param {Signed[]} leases
 */
function distinct(leases) {
  const byId = [...leases].sort((a, b) => compare(b.id, a.id))
  return [...new Map(byId.map((lease) => [hex(encode(lease.fields)), lease])).values()]
}

/**
 * Of one lender's leases, those in force at the first time at which they are too much.
 * @param {Signed[]} leases
 * @param {number} share
 */
function overdrawn(leases, share) {
  const starts = leases.map(({ fields }) => BigInt(fields.not_before_ms)).sort((a, b) => (a < b ? -1 : Number(a > b)))
  const at = (time) => leases.filter(({ fields }) => during(fields.not_before_ms, time, fields.expires_ms))
  return starts.map(at).find((inForce) => tooMuch(inForce, share)) ?? []
}

/** @param {Signed[]} leases @param {number} share */
const tooMuch = (leases, share) => leases.length > LEASES_MAX || watts(leases) > share

/** @param {Signed[]} leases */
const watts = (leases) => leases.reduce((sum, { fields }) => sum + fields.lent_w, 0)

/** @param {Signed} roster @param {Uint8Array} key */
const shareOf = ({ fields }, key) => fields.members.find((member) => equal(member.key, key))?.guaranteed_w ?? 0

/** Larger leases first, then by their ids. @param {Signed} a @param {Signed} b */
const larger = (a, b) => b.fields.lent_w - a.fields.lent_w || compare(a.id, b.id)
