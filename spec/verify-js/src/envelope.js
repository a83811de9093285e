/** COSE_Sign1 (RFC 9052) with Ed25519 (algorithm -19, RFC 9864): the bytes received are the bytes verified. */
import { blake3, concat, equal, startsWith, unhex, utf8 } from './bytes.js'
import { decode, encode } from './cbor.js'
import * as ed25519 from './ed25519.js'
import { MANIFEST_BYTES_MAX, RECORD_BYTES_MAX } from './limits.js'
import { demand, Refusal } from './refusal.js'
import { fit } from './schema.js'

const TAG_SIGN1 = unhex('d2')
/** {1: -19, 4: key id} up to the key id's 32 bytes. There is one form only, and it is compared, not parsed. */
const PROTECTED = unhex('a20132045820')

/**
 * A record whose signature was made or checked here.
 * @typedef {{record: string, fields: any, signer: Uint8Array, envelope: Uint8Array, id: Uint8Array, protected: Uint8Array,
 *   payload: Uint8Array, sig_structure: Uint8Array, signature: Uint8Array}} Signed
 */

/**
 * The record in an envelope signed by the key of `seed`.
 * @param {string} record
 * @param {any} fields
 * @param {Uint8Array} seed
 */
export function sign(record, fields, seed) {
  const signer = ed25519.publicKey(seed)
  const payload = encode(fit(record, fields))
  const header = concat(PROTECTED, signer)
  const sig_structure = sigStructure(record, header, payload)
  const signature = ed25519.sign(sig_structure, seed)
  const envelope = concat(TAG_SIGN1, encode([header, {}, payload, signature]))
  return {
    record,
    fields,
    signer,
    envelope,
    id: blake3(envelope),
    protected: header,
    payload,
    sig_structure,
    signature,
  }
}

/**
 * The record, signed by exactly `signer` as a `record`; refused otherwise.
 * @param {string} record
 * @param {Uint8Array} envelope
 * @param {Uint8Array} signer
 * @returns {Signed}
 */
export function verify(record, envelope, signer, bytesMax = bytesMaxOf(record)) {
  const { header, payload, signature } = open(envelope, bytesMax)
  demand(equal(keyOf(header), signer), 'bad_signature', `the ${record} is not signed by the key it should be`)
  const sig_structure = sigStructure(record, header, payload)
  ed25519.verify(signature, sig_structure, signer)
  const fields = fit(record, decode(payload, bytesMax))
  return {
    record,
    fields,
    signer,
    envelope,
    id: blake3(envelope),
    protected: header,
    payload,
    sig_structure,
    signature,
  }
}

/**
 * The record, signed by the key that its envelope names: whose key that is, is for the caller.
 * @param {string} record
 * @param {Uint8Array} envelope
 */
export const verifyClaimed = (record, envelope) => verify(record, envelope, claimedSigner(envelope, bytesMaxOf(record)))

/** The key that the envelope says signed it. @param {Uint8Array} envelope */
export const claimedSigner = (envelope, bytesMax = RECORD_BYTES_MAX) => keyOf(open(envelope, bytesMax).header)

/**
 * The record's fields as the payload has them, whoever signed it; null if it has others.
 * @param {string} record
 * @param {Uint8Array} envelope
 */
export function glance(record, envelope) {
  try {
    return fit(record, decode(open(envelope, bytesMaxOf(record)).payload, bytesMaxOf(record)))
  } catch (error) {
    if (error instanceof Refusal) return null
    throw error
  }
}

/** @param {string} record */
const bytesMaxOf = (record) => (record === 'manifest' ? MANIFEST_BYTES_MAX : RECORD_BYTES_MAX)

/** @param {Uint8Array} header */
const keyOf = (header) => header.subarray(PROTECTED.length)

/** What is signed (RFC 9052, 4.4), with the record's name as its domain. */
function sigStructure(record, header, payload) {
  return encode(['Signature1', header, utf8(`fallow/1/${record}`), payload])
}

/** The parts of an envelope. @param {Uint8Array} envelope @param {number} bytesMax */
function open(envelope, bytesMax) {
  demand(envelope.length <= bytesMax, 'too_large', `an envelope of ${envelope.length} bytes`)
  demand(startsWith(envelope, TAG_SIGN1), 'bad_encoding', 'it does not begin as a COSE_Sign1')
  const parts = decode(envelope.subarray(1), bytesMax)
  demand(isSign1(parts), 'bad_encoding', 'not exactly the four parts of a COSE_Sign1')
  const [header, , payload, signature] = parts
  const ours = startsWith(header, PROTECTED) && header.length === PROTECTED.length + 32 && signature.length === 64
  demand(ours, 'bad_signature', "the algorithm, key id or length is not Fallow's")
  return { header, payload, signature }
}

/** @param {any} parts */
function isSign1(parts) {
  if (!Array.isArray(parts) || parts.length !== 4) return false
  const [header, unprotected, payload, signature] = parts
  const empty = unprotected?.constructor === Object && Object.keys(unprotected).length === 0
  return empty && [header, payload, signature].every((part) => part instanceof Uint8Array)
}
