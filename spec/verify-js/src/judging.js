/**
 * Whether enough owners came to the same: of one window of a text, or of a function's results.
 *
 * `who` says whom a judgement may count: {parties, anchors}, keys in hexadecimal.
 */
import { compare, equal, hex } from './bytes.js'
import { distancePpm, outputOf } from './outputs.js'

/** @typedef {{parties: Set<string>, anchors: Set<string>}} Who */
/** @typedef {{node: Uint8Array, owner?: Uint8Array}} Member whoever has no owner by mandate counts for nobody */

/** @param {Iterable<string>} owners @param {import('./policies.js').Policy} policy @param {Who} who */
export function enough(owners, policy, { anchors }) {
  const distinct = new Set(owners)
  return distinct.size >= policy.k && (!policy.anchored || [...distinct].some((owner) => anchors.has(owner)))
}

/**
 * The judgement on one window: its outcome, the nodes that do not belong to the majority, and whether the tokens that were
 * carried along are borne out.
 * @param {{receipt: any, executor: Member, checks: any[], top_p_ppm: number, carried_values?: any[]}} window
 * @param {import('./policies.js').Policy} policy
 * @param {any} tolerance
 * @param {Who} who
 */
export function judgeWindow(window, policy, tolerance, who) {
  const parties = new Set([...who.parties, ...keysOf(window.executor)])
  const checks = heard(window.checks)
  const views = checks.map((check) => ({ check, ...viewOf(check, window, tolerance, parties) }))
  const against = new Set(views.filter(({ agrees }) => !agrees).map(({ check }) => hex(check.node)))
  const confirming = views.filter(({ agrees }) => agrees)
  const objectors = views.filter(({ check, counts }) => counts && against.has(hex(check.node)))
  const alliesOf = (leader) =>
    objectors.filter(({ check }) => near(leader.check.attestation, check.attestation, tolerance))
  // Under `adaptive`, once somebody objects, the checkers alone decide, by majority.
  const contested = policy.kind === 'adaptive' && objectors.length > 0
  const own = policy.kind === 'committee' || contested ? [] : ownersOf([window.executor])
  const agreeing = new Set([...own, ...checkersOf(confirming)])
  const camps = objectors.map((leader) => new Set(checkersOf(alliesOf(leader))).size)
  if (enough(agreeing, policy, who) && (!contested || agreeing.size > Math.max(...camps))) {
    return { outcome: 'accepted', against, carried_good: confirming.every(({ carried }) => carried) }
  }
  for (const leader of objectors) {
    const allies = alliesOf(leader)
    const owners = new Set(checkersOf(allies))
    if (!enough(owners, policy, who) || (contested && owners.size <= agreeing.size)) continue
    const allied = new Set(allies.map(({ check }) => hex(check.node)))
    const others = [
      ...checks.map(({ node }) => hex(node)).filter((node) => !allied.has(node)),
      hex(window.executor.node),
    ]
    return { outcome: 'rejected', against: new Set(others), carried_good: true }
  }
  return { outcome: 'inconclusive', against: new Set(), carried_good: true }
}

/** One check for each node, in the order of their keys: of several one with an attestation, of these the lowest id's. */
function heard(checks) {
  const rank = (a, b) =>
    compare(a.node, b.node) ||
    Number(a.attestation === undefined) - Number(b.attestation === undefined) ||
    (a.attestation ? compare(a.attestation.id, b.attestation.id) : 0)
  const ranked = [...checks].sort(rank)
  return ranked.filter(({ node }, i) => i === 0 || !equal(node, ranked[i - 1].node))
}

/** Whether a checker gave all its figures for the window, and may; whether it agrees, and to what was carried along. */
function viewOf(check, { receipt, top_p_ppm, carried_values }, tolerance, parties) {
  const found = check.attestation?.fields
  const claimed = receipt.fields.values_micro
  const start = check.claimed - claimed.length
  const speaks = found !== undefined && !isParty(check, parties) && equal(found.subject, receipt.id)
  const counts = speaks && start >= 0 && found.values_micro.length === check.claimed
  if (!counts) return { counts, agrees: false, carried: false }
  const part = (from, to) => ({
    values: found.values_micro.slice(from, to),
    gaps: found.gaps_micro.slice(from, to),
    masses: found.masses_ppm.slice(from, to),
  })
  const [head, own] = [part(0, start), part(start)]
  const agrees = bornOut(claimed, own, top_p_ppm, tolerance)
  return { counts, agrees, carried: bornOut(carried_values ?? head.values, head, top_p_ppm, tolerance) }
}

/** Whether claimed values and a checker's figures for the same tokens can both be honest. */
function bornOut(claimed, { values, gaps, masses }, top_p_ppm, tolerance) {
  const massMost = BigInt(top_p_ppm) + BigInt(tolerance.mass_ppm)
  return (
    close(claimed, values, tolerance) &&
    gaps.every((gap) => gap <= tolerance.gap_micro) &&
    masses.every((mass) => mass <= massMost)
  )
}

const near = (one, other, tolerance) => close(one.fields.values_micro, other.fields.values_micro, tolerance)

/** @param {number[]} one @param {number[]} other */
function close(one, other, { value_micro }) {
  return one.length === other.length && one.every((value, i) => Math.abs(value - other[i]) <= value_micro)
}

/**
 * The judgement on a function's results: as above, with the results of the best group, and of these the one closest to all,
 * which is to be used; both null if nothing is decided.
 * @param {(Member & {piece: any})[]} results
 * @param {import('./policies.js').Policy} policy
 * @param {any} tolerance
 * @param {Who} who
 */
export function judgeResults(results, policy, tolerance, who) {
  const given = results
    .map((result, place) => ({
      ...result,
      place,
      output: result.piece && !isParty(result, who.parties) ? outputOf(result.piece) : null,
    }))
    .filter(({ output }) => output !== null)
    .sort(inOrder)
  const agree = (a, b) => {
    const apart = distancePpm(a.output, b.output)
    return apart !== null && apart <= tolerance.value_micro
  }
  const best = given.map((seed) => grown(seed, given, agree)).reduce((a, b) => (rank(b) > rank(a) ? b : a), [])
  if (!enough(ownersOf(best), policy, who))
    return { outcome: 'inconclusive', against: new Set(), best: null, use: null }
  const places = new Set(best.map(({ place }) => place))
  const against = new Set(results.filter((_, place) => !places.has(place)).map(({ node }) => hex(node)))
  return { outcome: 'accepted', against, best, use: medoid(best) }

  /** A group's rank as one number: whether it is enough, its owners, its members. */
  function rank(group) {
    const owners = ownersOf(group)
    return Number(enough(owners, policy, who)) * 2 ** 40 + new Set(owners).size * 2 ** 20 + group.length
  }
}

/** The results that agree with `seed` and with one another, taken in their order. */
function grown(seed, given, agree) {
  const group = [seed]
  for (const other of given) if (other !== seed && group.every((one) => agree(one, other))) group.push(other)
  return group
}

/** The one whose largest distance to the others is least; of equals the first. */
function medoid(group) {
  const spread = (one) => group.map((other) => distancePpm(one.output, other.output)).reduce((a, b) => (b > a ? b : a))
  const measured = [...group].sort(inOrder).map((result) => ({ result, spread: spread(result) }))
  return measured.reduce((a, b) => (b.spread < a.spread ? b : a)).result
}

/** Whether the member is one of these keys, or works for one. @param {Member} member @param {Set<string>} parties */
export const isParty = (member, parties) => keysOf(member).some((key) => parties.has(key))

/** By which it may be a party to a job. @param {Member} member */
export const keysOf = ({ node, owner }) => (owner ? [hex(node), hex(owner)] : [hex(node)])

/** @param {Member[]} members */
const ownersOf = (members) => members.flatMap(({ owner }) => (owner ? [hex(owner)] : []))

/** @param {any[]} views */
const checkersOf = (views) => ownersOf(views.map(({ check }) => check))

/** By node, the results of one node by their final receipts. */
function inOrder(a, b) {
  return compare(a.node, b.node) || (a.receipt && b.receipt ? compare(a.receipt, b.receipt) : 0)
}
