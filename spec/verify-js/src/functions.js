/** Judging a function call: several nodes computed the same, as far as their outputs are opened. */
import { isDeepStrictEqual } from 'node:util'
import { equal, hex } from './bytes.js'
import { committeeFor } from './cases.js'
import { isParty, judgeResults } from './judging.js'
import { QUORUM_MAX } from './limits.js'
import { distancePpm, outputOf } from './outputs.js'
import { draws } from './policies.js'
import { demand } from './refusal.js'

/** @typedef {import('./cases.js').Part} Part */
/** @typedef {import('./envelope.js').Signed} Signed */

/** A quorum and its replacements: each result is compared with each other. */
const RESULTS_MAX = 4 * QUORUM_MAX

/**
 * The outcome, and the ruling on each receipt, or on the order that brought none.
 * @param {any} evidence
 * @param {Part[]} executors
 */
export function judgeFunction(evidence, executors) {
  const { policy, nonce } = evidence.question
  demand(evidence.parts.length <= RESULTS_MAX, 'too_large', `more than ${RESULTS_MAX} results of one function`)
  const [first] = executors
  const final = finalOf(first)
  if (policy.kind === 'committee') return byCommittee(evidence, first, final)
  if (!['audit', 'adaptive'].includes(policy.kind)) return byMembers(evidence, executors)
  const asked = askedAbout(evidence, final)
  if (final === undefined || draws(policy, nonce, final.id) || (policy.kind === 'adaptive' && asked.length > 0))
    return byMembers(evidence, [first, ...asked])
  const standing = (part) => (part === first ? 'upheld' : standingIn(evidence, part, [], null))
  return { outcome: 'accepted', rulings: rule(evidence.parts, standing) }
}

/** Enough of the members came to one result. @param {any} evidence @param {Part[]} members */
function byMembers(evidence, members) {
  const judged = sameWork(members, members)
  const { outcome, best } =
    evidence.question.policy.kind === 'adaptive' ? judgeAudited(evidence, judged) : judgeAll(evidence, judged)
  return { outcome, rulings: rule(evidence.parts, (part) => standingIn(evidence, part, judged, best)) }
}

/**
 * Members drawn for the executor's receipt come to one result, and the executor's agrees with it or does not.
 * @param {any} evidence
 * @param {Part} executor
 * @param {Signed | undefined} final
 */
function byCommittee(evidence, executor, final) {
  const called = final ? committeeFor(evidence, executor, final.id) : new Set()
  const drawn = askedAbout(evidence, final).filter(({ owner }) => owner && called.has(hex(owner)))
  const judged = sameWork(drawn, [executor])
  const { use, best } = judgeAll(evidence, judged)
  const own = resultOf(executor)
  if (use === null || own === undefined)
    return { outcome: 'inconclusive', rulings: rule(evidence.parts, (part) => standingIn(evidence, part, [], null)) }
  const agrees = near(own, use.output, evidence.tolerance)
  const standing = (part) =>
    part === executor ? (agrees ? 'upheld' : 'refuted') : standingIn(evidence, part, judged, best)
  return { outcome: agrees ? 'accepted' : 'rejected', rulings: rule(evidence.parts, standing) }
}

/** The judgement on the results of these parts, and the parts of the best group: null if nothing is decided. */
function judgeAll({ question, tolerance, who }, parts) {
  const results = parts.map((part) => ({
    node: part.node,
    owner: part.owner,
    piece: resultOf(part),
    receipt: finalOf(part)?.id,
    part,
  }))
  const { outcome, use, best } = judgeResults(results, question.policy, tolerance, who)
  return { outcome, use, best: best && best.map(({ part }) => part) }
}

/**
 * The first part is the executor's, the others checked it: while all are of one mind, as ever. Once they are not, most of the
 * checkers decide, and the executor's result is held against theirs.
 */
function judgeAudited(evidence, [executor, ...checks]) {
  const speaks = (part) => outputOfPart(part) !== null && !isParty(part, evidence.who.parties)
  const together = judgeAll(evidence, [executor, ...checks])
  if (together.best && [executor, ...checks].every((part) => !speaks(part) || together.best.includes(part))) return together
  const alone = judgeAll(evidence, checks)
  const owners = (parts) => new Set(parts.flatMap(({ owner }) => (owner ? [hex(owner)] : ['']))).size
  if (!alone.best || resultOf(executor) === undefined || 2 * owners(alone.best) <= owners(checks.filter(speaks)))
    return { outcome: 'inconclusive', best: null }
  const agrees = near(resultOf(executor), alone.use.output, evidence.tolerance)
  return { outcome: 'accepted', best: agrees ? [executor, ...alone.best] : alone.best }
}

const outputOfPart = (part) => (resultOf(part) ? outputOf(resultOf(part)) : null)

/** @param {any} piece of the executor @param {any} majority @param {any} tolerance */
function near(piece, majority, tolerance) {
  const own = outputOf(piece)
  const apart = own && distancePpm(own, majority)
  return apart !== null && apart <= tolerance.value_micro
}

/**
 * @param {any} evidence
 * @param {Part} part
 * @param {Part[]} judged those whose results were held against one another
 * @param {Part[] | null} best those who are borne out; null if nothing is decided
 */
function standingIn({ who }, part, judged, best) {
  if (finalOf(part) === undefined) return 'silent'
  if (best === null || resultOf(part) === undefined || isParty(part, who.parties) || !judged.includes(part))
    return 'undecided'
  return best.includes(part) ? 'upheld' : 'refuted'
}

/** One ruling for everything of a part. @param {Part[]} parts @param {(part: Part) => string} standing */
function rule(parts, standing) {
  const rulings = new Map()
  for (const part of parts) {
    const said = standing(part)
    for (const { id } of [part.order, ...part.receipts])
      rulings.set(hex(id), { standing: said, due: said === 'upheld' })
  }
  return rulings
}

/** Those who were given the same call to check an executor's receipt. @returns {Part[]} */
function askedAbout({ parts }, receipt) {
  return parts.filter(({ order: { fields } }) => receipt && fields.checks && equal(fields.checks, receipt.id))
}

/** Those that were asked about what the first opened of `others` was asked about, as far as that is opened. */
function sameWork(parts, others) {
  const first = others.find(({ opened }) => opened)?.opened
  return parts.filter(({ opened }) => !first || !opened || isDeepStrictEqual(opened.work, first.work))
}

/** The receipt by which the part is complete. @param {Part} part */
function finalOf({ receipts }) {
  const last = receipts.at(-1)
  return last?.fields.end === 'final' ? last : undefined
}

/** A result is what a final receipt vouches for and is opened. @param {Part} part */
const resultOf = (part) => (finalOf(part) ? part.opened?.pieces.at(-1) : undefined)
