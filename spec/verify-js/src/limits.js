/** The bounds that are not in the CDDL, as the table of the specification's page of limits has them. */
import { readFileSync } from 'node:fs'
import { SPEC } from './spec.js'

const ROW = /^\| `(?<name>[A-Z_]+)` \| (?<value>\d+)[ |]/gm
const PAGE = readFileSync(new URL('09-limits.md', SPEC), 'utf8')
const LIMITS = new Map([...PAGE.matchAll(ROW)].map(({ groups }) => [groups.name, Number(groups.value)]))

export const RECORD_BYTES_MAX = limit('RECORD_BYTES_MAX')
export const MANIFEST_BYTES_MAX = limit('MANIFEST_BYTES_MAX')
export const MESSAGE_BYTES_MAX = limit('MESSAGE_BYTES_MAX')
export const PLEA_BYTES_MAX = limit('PLEA_BYTES_MAX')
export const PUBLISHED_BYTES_MAX = limit('PUBLISHED_BYTES_MAX')
export const DEPTH_MAX = limit('DEPTH_MAX')
export const ENTRIES_MAX = limit('ENTRIES_MAX')
export const MESSAGE_ENTRIES_MAX = limit('MESSAGE_ENTRIES_MAX')
export const CHUNK_BYTES = limit('CHUNK_BYTES')

export const SKEW_MS = limit('SKEW_MS')
export const MANDATE_MS_MAX = limit('MANDATE_MS_MAX')
export const PROFILE_MS_MAX = limit('PROFILE_MS_MAX')
export const WORKER_KEY_MS_MAX = limit('WORKER_KEY_MS_MAX')
export const ISSUER_MS_MAX = limit('ISSUER_MS_MAX')
export const ISSUER_BYTES_MAX = limit('ISSUER_BYTES_MAX')

export const OUTPUT_TOKENS_MAX = limit('OUTPUT_TOKENS_MAX')
export const WINDOW_TOKENS = limit('WINDOW_TOKENS')

export const SILENCE_MS_MAX = limit('SILENCE_MS_MAX')
export const ACCEPT_MS_MAX = limit('ACCEPT_MS_MAX')
export const VOUCHER_MS_MAX = limit('VOUCHER_MS_MAX')
export const YIELD_MS_MAX = limit('YIELD_MS_MAX')
export const JOB_MS_MAX = limit('JOB_MS_MAX')

export const QUORUM_MAX = limit('QUORUM_MAX')
export const CANDIDATES_MAX = limit('CANDIDATES_MAX')
export const HOLD_MS_MAX = limit('HOLD_MS_MAX')
export const HELD_MAX = limit('HELD_MAX')
export const GROUNDS_MAX = limit('GROUNDS_MAX')

export const SHED_MS_MAX = limit('SHED_MS_MAX')
export const SHED_AHEAD_MS_MAX = limit('SHED_AHEAD_MS_MAX')
export const ROSTER_MS_MAX = limit('ROSTER_MS_MAX')
export const LEASE_MS_MAX = limit('LEASE_MS_MAX')
export const WITNESS_MS_MAX = limit('WITNESS_MS_MAX')
export const WITNESSES_MAX = limit('WITNESSES_MAX')
export const WITNESS_OWNERS_MIN = limit('WITNESS_OWNERS_MIN')
export const LEASES_MAX = limit('LEASES_MAX')

export const FINDINGS_MAX = limit('FINDINGS_MAX')
export const EVIDENCE_MAX = limit('EVIDENCE_MAX')

/** In the unit of the name: bytes, milliseconds, or so many. @param {string} name */
function limit(name) {
  const value = LIMITS.get(name)
  if (value === undefined) throw new Error(`the page of limits has no ${name}`)
  return value
}
