/** Bytes: joining, comparing, hashing. Every other module speaks of bytes through this one. */
import { blake3 as hash } from '@noble/hashes/blake3.js'
import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from '@noble/hashes/utils.js'

export { bytesToHex as hex, concatBytes as concat, hexToBytes as unhex, utf8ToBytes as utf8 }

/** BLAKE3, 32 bytes, over the parts one after the other. @param {...Uint8Array} parts */
export const blake3 = (...parts) => hash(concatBytes(...parts))

/** @param {Uint8Array} a @param {Uint8Array} b */
export const equal = (a, b) => compare(a, b) === 0

/**
 * Less than 0, 0 or more than 0, as `a` sorts before, with or after `b`, byte by byte.
 * @param {Uint8Array} a
 * @param {Uint8Array} b
 */
export const compare = (a, b) => Buffer.compare(a, b)

/** @param {Uint8Array} bytes @param {Uint8Array} prefix */
export const startsWith = (bytes, prefix) => equal(bytes.subarray(0, prefix.length), prefix)
