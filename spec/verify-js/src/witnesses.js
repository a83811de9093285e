/** What others have measured of a node: which statements count, and the figures that a client goes by. */
import { equal, hex } from './bytes.js'
import { verifyClaimed } from './envelope.js'
import { checkCurrent, checkMandate } from './identity.js'
import { WITNESSES_MAX, WITNESS_OWNERS_MIN } from './limits.js'
import { demand, Refusal } from './refusal.js'

const FIGURES = ['rtt_p50_us', 'rtt_p95_us', 'jitter_us', 'loss_ppm']

/** The statement, about `node` and of now, and the owner of its witness. @param {Uint8Array} envelope */
export function checkWitness(envelope, node, now_ms) {
  const { fields, signer } = verifyClaimed('witness', envelope)
  const theirs = equal(fields.witness, signer) && equal(fields.subject, node)
  demand(theirs, 'bad_signature', 'not of this witness about this node')
  checkCurrent(fields.issued_ms, fields.expires_ms, now_ms)
  const mandate = verifyClaimed('mandate', fields.mandate)
  checkMandate(mandate, fields.witness, mandate.fields.roles[0], now_ms)
  return { statement: fields, owner: mandate.fields.owner }
}

/** One statement of each owner other than the node's. @param {Uint8Array[]} envelopes */
export function heard(envelopes, node, owner, now_ms) {
  const found = new Map()
  for (const envelope of envelopes) {
    try {
      const witnessed = checkWitness(envelope, node, now_ms)
      const by = hex(witnessed.owner)
      if (!equal(witnessed.owner, owner) && !found.has(by)) found.set(by, witnessed.statement)
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
    }
  }
  return [...found.values()].slice(0, WITNESSES_MAX)
}

/** The profile's figures, by the best knowledge of a client. @param {any} profile @param {any[]} statements */
export function believed(profile, statements, own_rtt_us) {
  const figures = Object.fromEntries(FIGURES.map((name) => [name, profile[name]]))
  if (statements.length >= WITNESS_OWNERS_MIN)
    for (const name of FIGURES) figures[name] = median(statements.map((statement) => statement[name]))
  if (own_rtt_us !== undefined) figures.rtt_p50_us = figures.rtt_p95_us = own_rtt_us
  return figures
}

/** Of two in the middle the larger. @param {number[]} figures */
const median = (figures) => figures.sort((a, b) => a - b)[Math.floor(figures.length / 2)]
