/** How a result is to be checked, and what chance decides of it: from the commitment's nonce and the receipt alone. */
import { blake3, compare, hex, utf8 } from './bytes.js'
import { CANDIDATES_MAX, QUORUM_MAX } from './limits.js'
import { demand, Refusal } from './refusal.js'

const UNHOLDABLE = 'unsatisfiable_assurance'
const MILLION = 1_000_000
/** Numbers have no leading zeros, so that a policy has one text. */
const GRAMMAR =
  /^(?:(?<none>none)|(?<kind>quorum|committee):(?<k>\d{1,2})\/(?<n>\d{1,2})|(?<sampled>audit|adaptive):(?<ppm>\d{1,7}))(?<anchor>\+anchor)?$/

/** @typedef {{kind: string, k: number, n: number, ppm: number, anchored: boolean}} Policy */

/**
 * The policy that `text` says; refused if it says none or one that cannot be held.
 * @param {string} text
 * @returns {Policy}
 */
export function parsePolicy(text) {
  const words = GRAMMAR.exec(text)?.groups
  if (words === undefined) throw new Refusal(UNHOLDABLE, 'no policy')
  const canonical = [words.k, words.n, words.ppm].every(
    (digits) => digits === undefined || String(Number(digits)) === digits,
  )
  const policy = { ...numbersOf(words), anchored: words.anchor !== undefined }
  demand(canonical && holds(policy), UNHOLDABLE, 'a policy that cannot be held')
  return policy
}

/** @param {Record<string, string | undefined>} words */
function numbersOf(words) {
  if (words.none !== undefined) return { kind: 'none', k: 1, n: 1, ppm: MILLION }
  if (words.kind !== undefined) return { kind: words.kind, k: Number(words.k), n: Number(words.n), ppm: MILLION }
  return { kind: words.sampled ?? '', k: 2, n: 2, ppm: Number(words.ppm) }
}

/** @param {Policy} policy */
function holds({ kind, k, n, ppm, anchored }) {
  if (kind === 'none') return !anchored
  return 2 * k > n && k <= n && 2 <= n && n <= QUORUM_MAX && 1 <= ppm && ppm <= MILLION
}

/**
 * Whether the work of this receipt has to be checked.
 * @param {Policy} policy
 * @param {Uint8Array} nonce
 * @param {Uint8Array} receipt
 */
export function draws(policy, nonce, receipt) {
  if (policy.kind === 'none') return false
  if (policy.ppm === MILLION) return true
  const number = new DataView(blake3(utf8('fallow/1/audit'), nonce, receipt).buffer).getBigUint64(0)
  return number * BigInt(MILLION) < BigInt(policy.ppm) << 64n
}

/**
 * The committee: of the candidates who are no party to the job, the first `count` by BLAKE3 of nonce, receipt and owner.
 * @param {{nonce: Uint8Array, receipt: Uint8Array, candidates: Uint8Array[], parties: Uint8Array[], count: number}} lot
 */
export function drawCommittee({ nonce, receipt, candidates, parties, count }) {
  const excluded = new Set(parties.map(hex))
  const eligible = new Map(candidates.map((owner) => [hex(owner), owner]).filter(([name]) => !excluded.has(name)))
  demand(count <= eligible.size && candidates.length <= CANDIDATES_MAX, UNHOLDABLE, 'too few candidates, or too many')
  const rank = (owner) => blake3(utf8('fallow/1/sortition'), nonce, receipt, owner)
  const ranked = [...eligible.values()].map((owner) => ({ owner, rank: rank(owner) }))
  return ranked
    .sort((a, b) => compare(a.rank, b.rank))
    .slice(0, count)
    .map(({ owner }) => owner)
}
