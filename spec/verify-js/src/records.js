/** What an envelope found lying about turns out to be: each kind is signed under a domain of its own. */
import { equal } from './bytes.js'
import { claimedSigner, glance, verify } from './envelope.js'
import { MANIFEST_BYTES_MAX, RECORD_BYTES_MAX } from './limits.js'
import { demand, Refusal } from './refusal.js'
import { rule } from './schema.js'

/** The names of all records, as the rule `record` lists them. @type {string[]} */
const RECORDS = rule('record').options.map(({ name }) => name)

/** The field that names who must have signed, where a record has one. */
const AUTHOR = {
  issuer: 'owner',
  'capability-profile': 'node',
  'connectivity-profile': 'node',
  'worker-key': 'node',
  channel: 'payer',
  'feeder-lease': 'lender',
  witness: 'witness',
}

/**
 * The record in the envelope, signed by the key that it names.
 * @param {Uint8Array} envelope
 * @returns {import('./envelope.js').Signed}
 */
export function identify(envelope) {
  demand(envelope.length <= MANIFEST_BYTES_MAX, 'too_large', 'no record is so large')
  const signer = claimedSigner(envelope, MANIFEST_BYTES_MAX)
  const fitting = RECORDS.filter((record) => record === 'manifest' || envelope.length <= RECORD_BYTES_MAX)
  // Each name that is tried costs a check of a signature, so those come first whose fields are there.
  const looks = (record) => Number(glance(record, envelope) !== null)
  for (const record of fitting.sort((a, b) => looks(b) - looks(a))) {
    const signed = verifyAs(record, envelope, signer)
    if (signed === null) continue
    const author = signed.fields[record === 'mandate' && signed.fields.issuer === undefined ? 'owner' : AUTHOR[record]]
    demand(author === undefined || equal(author, signer), 'bad_signature', 'not signed by the one who says it')
    return signed
  }
  throw new Refusal('bad_signature', 'the signature does not hold for any record')
}

/**
 * The record, or null if the signature is not on one of this kind.
 * @param {string} record
 * @param {Uint8Array} envelope
 * @param {Uint8Array} signer
 */
function verifyAs(record, envelope, signer) {
  try {
    return verify(record, envelope, signer)
  } catch (error) {
    if (error instanceof Refusal && error.code === 'bad_signature') return null
    throw error
  }
}
