/** Digests: of plaintext under a salt, of what was delivered piece by piece, and of how it will be checked. */
import { blake3, utf8 } from './bytes.js'

/** @param {Uint8Array} salt @param {Uint8Array} plaintext */
export const saltedDigest = (salt, plaintext) => blake3(salt, plaintext)

/** The rolling hash before the first piece. @param {Uint8Array} salt @param {Uint8Array} order */
export const transcriptStart = (salt, order) => blake3(utf8('fallow/1/transcript'), salt, order)

/** The rolling hash after one more piece. @param {Uint8Array} transcript @param {Uint8Array} piece */
export const transcriptNext = (transcript, piece) => blake3(transcript, piece)

/** What an order says of how it will be checked. @param {Uint8Array} nonce @param {string} policy */
export const checkCommitment = (nonce, policy) => blake3(utf8('fallow/1/policy'), nonce, utf8(policy))
