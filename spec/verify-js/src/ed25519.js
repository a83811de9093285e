/**
 * Ed25519, as strict as the specification: one key, one message, one signature, and every verifier says the same.
 * The equation is checked without the cofactor, on keys of the prime-order subgroup, in canonical encodings only.
 */
import { ed25519 } from '@noble/curves/ed25519.js'
import { bytesToNumberLE } from '@noble/curves/utils.js'
import { sha512 } from '@noble/hashes/sha2.js'
import { concat, equal, hex } from './bytes.js'
import { demand } from './refusal.js'

const { Point } = ed25519
const L = Point.Fn.ORDER
/** @type {Map<string, any>} */
const signers = new Map()

/** @param {Uint8Array} seed */
export const publicKey = (seed) => ed25519.getPublicKey(seed)

/** @param {Uint8Array} message @param {Uint8Array} seed */
export const sign = (message, seed) => ed25519.sign(message, seed)

/**
 * Returns if `signature` is `key`'s on `message`, else refuses with bad_signature.
 * @param {Uint8Array} signature
 * @param {Uint8Array} message
 * @param {Uint8Array} key
 */
export function verify(signature, message, key) {
  demand(signature.length === 64 && key.length === 32, 'bad_signature', 'a signature or key of another length')
  const [encodedR, s] = [signature.subarray(0, 32), bytesToNumberLE(signature.subarray(32))]
  demand(s < L, 'bad_signature', 'S is not reduced')
  const [a, r] = [signer(key), point(encodedR)]
  demand(a !== null, 'bad_signature', 'the key is no point of the prime-order subgroup')
  demand(r !== null && !r.isSmallOrder(), 'bad_signature', 'R is not a point in canonical form, or of small order')
  const k = bytesToNumberLE(sha512(concat(encodedR, key, message))) % L
  const expected = Point.BASE.multiplyUnsafe(s).subtract(a.multiplyUnsafe(k))
  demand(equal(expected.toBytes(), encodedR), 'bad_signature', 'the signature does not hold')
}

/** The key's point, or null if none may sign with it. Remembered, since finding its order costs as much as a signature. */
function signer(key) {
  const name = hex(key)
  if (!signers.has(name)) {
    const a = point(key)
    signers.set(name, a !== null && !a.isSmallOrder() && a.isTorsionFree() ? a : null)
  }
  return signers.get(name)
}

/** The point in its one canonical encoding (RFC 8032), or null. @param {Uint8Array} encoded */
function point(encoded) {
  try {
    return Point.fromBytes(encoded, false)
  } catch {
    return null
  }
}
