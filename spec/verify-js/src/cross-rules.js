/**
 * What the fields of one structure must be to each other: the rules that CDDL cannot say, by the name of its rule.
 * Each gives what is wrong, or null.
 */
import { compare, equal } from './bytes.js'
import {
  CHUNK_BYTES,
  ISSUER_MS_MAX,
  LEASE_MS_MAX,
  MANDATE_MS_MAX,
  PROFILE_MS_MAX,
  ROSTER_MS_MAX,
  SHED_AHEAD_MS_MAX,
  SHED_MS_MAX,
  WITNESS_MS_MAX,
  WORKER_KEY_MS_MAX,
} from './limits.js'

/** How a window of a job may end. */
const ENDS = ['open', 'final', 'yielded', 'cancelled']
const OUTCOMES = ['accepted', 'rejected', 'inconclusive']
const STANDINGS = ['upheld', 'refuted', 'undecided', 'silent']
const DISPUTES = ['wrong', 'two-faced', 'disowned', 'unpaid', 'mismatched', 'unopened']
const DTYPES = new Set([
  ...['bool', 'float16', 'bfloat16', 'float32', 'float64', 'complex64', 'complex128'],
  ...[8, 16, 32, 64].flatMap((bits) => [`int${bits}`, `uint${bits}`]),
])

/** @type {Record<string, (fields: any) => string | null>} */
export const CROSS_RULES = {
  mandate: (m) => window(m, MANDATE_MS_MAX),
  'worker-key': (w) => window(w, WORKER_KEY_MS_MAX),
  issuer: (i) => window(i, ISSUER_MS_MAX),
  'capability-profile': (p) => lasting(p.issued_ms, p.expires_ms, PROFILE_MS_MAX),
  'connectivity-profile': (p) => lasting(p.issued_ms, p.expires_ms, PROFILE_MS_MAX),
  receipt: (r) => {
    if (r.values_micro.length !== r.tokens) return 'not one proof value for each token'
    return ENDS.includes(r.end) ? null : 'a window does not end so'
  },
  verdict: (v) => (OUTCOMES.includes(v.outcome) ? null : 'no outcome of a verdict'),
  finding: (f) => (STANDINGS.includes(f.standing) ? null : 'no standing of a member'),
  attestation: (a) =>
    new Set([a.values_micro.length, a.gaps_micro.length, a.masses_ppm.length]).size > 1
      ? 'not one value, gap and mass for each token'
      : null,
  file: (f) => {
    const chunks = (BigInt(f.length_bytes) + BigInt(CHUNK_BYTES) - 1n) / BigInt(CHUNK_BYTES)
    const wanted = chunks === 0n ? 1n : chunks
    return BigInt(f.chunks.length) === wanted ? null : 'the number of chunks does not fit the length'
  },
  tensor: (t) => (DTYPES.has(t.dtype) ? null : 'no array has such elements'),
  carried: (c) => {
    if (!DTYPES.has(c.dtype)) return 'no array has such elements'
    return c.positions_axis === undefined || c.positions_axis < c.shape.length ? null : 'positions lie along no dimension'
  },
  manifest: (m) => {
    const named = [m.programs, m.inputs, m.outputs].map((list) => list.map(({ name }) => name))
    if ([...named, m.parameters, m.entries].some((names) => new Set(names).size < names.length)) return 'two of one name'
    if (m.entries.includes('call') && m.outputs.length === 0) return 'a call that gives nothing'
    if (m.outputs.some(({ dtype }) => dtype !== 'float32')) return 'an output that is not float32'
    return m.entries.every((entry) => ['generate', 'score', 'call'].includes(entry)) ? null : 'an unknown entry'
  },
  voucher: (v) =>
    v.held.some(({ release_at_ms }, i) => i > 0 && BigInt(v.held[i - 1].release_at_ms) >= BigInt(release_at_ms))
      ? 'parts are not in the order of their release'
      : null,
  'shed-order': (s) => {
    const ahead = BigInt(s.start_ms) - BigInt(s.issued_ms)
    return ahead > BigInt(SHED_AHEAD_MS_MAX) ? 'it starts too far ahead' : lasting(s.start_ms, s.end_ms, SHED_MS_MAX)
  },
  'feeder-roster': (r) => {
    if (r.members.some(({ key }, i) => i > 0 && compare(r.members[i - 1].key, key) >= 0))
      return 'members are not in order'
    const guaranteed = r.members.reduce((sum, { guaranteed_w }) => sum + guaranteed_w, 0)
    return guaranteed > r.cap_w ? 'the guaranteed shares exceed the cap' : window(r, ROSTER_MS_MAX)
  },
  'feeder-lease': (l) => (equal(l.lender, l.borrower) ? 'nobody borrows from itself' : window(l, LEASE_MS_MAX)),
  witness: (w) =>
    equal(w.witness, w.subject)
      ? 'nobody is a witness of itself'
      : lasting(w.issued_ms, w.expires_ms, WITNESS_MS_MAX),
  dispute: (d) => {
    if (!DISPUTES.includes(d.kind)) return 'no dispute is about that'
    return BigInt(d.fee_ucr) % 3n === 0n ? null : 'a fee is three equal parts'
  },
  plea: (p) => (['owns', 'denies', 'answers'].includes(p.says) ? null : 'nobody pleads that'),
  decision: (d) => {
    if (!['upheld', 'dismissed'].includes(d.outcome)) return 'no outcome of a decision'
    return d.due_ucr > 0 && d.withheld_ucr > 0 ? 'the same receipts are due and withheld' : null
  },
  'message-rails': (m) => (m.rails.length === m.addresses.length ? null : 'not one address for each rail'),
  work: (w) => {
    if (w.sequences.length > 0 === w.arrays.length > 0) return 'sequences and arrays both, or neither'
    if (w.sequences.some((sequence) => sequence.length === 0)) return 'an empty sequence'
    const most = w.sequences.length > 0 ? w.sequences[0].length : 0
    return w.claimed === 0 || w.claimed < most ? null : 'the claim leaves no input'
  },
}

/** @param {{not_before_ms: number | bigint, expires_ms: number | bigint}} fields @param {number} most */
const window = ({ not_before_ms, expires_ms }, most) => lasting(not_before_ms, expires_ms, most)

/** @param {number | bigint} from_ms @param {number | bigint} to_ms @param {number} most */
function lasting(from_ms, to_ms, most) {
  const lasts = BigInt(to_ms) - BigInt(from_ms)
  return 0n < lasts && lasts <= BigInt(most) ? null : `it does not last from 1 to ${most} ms`
}
