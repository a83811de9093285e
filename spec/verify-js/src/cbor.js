/**
 * Deterministic CBOR (RFC 8949, 4.2.1) as Fallow allows it: maps with text keys, byte and text strings, lists, booleans,
 * null and integers of 64 bits. A safe integer is a number, any other a BigInt; maps are plain objects.
 */
import { Tokenizer, Type, decode as decodeCbor, encode as encodeCbor, rfc8949EncodeOptions } from 'cborg'
import { equal } from './bytes.js'
import { DEPTH_MAX, ENTRIES_MAX } from './limits.js'
import { demand, Refusal } from './refusal.js'

const INTEGER_MAX = 2n ** 63n - 1n
const ALLOWED = [
  Type.uint,
  Type.negint,
  Type.bytes,
  Type.string,
  Type.array,
  Type.map,
  Type.true,
  Type.false,
  Type.null,
]
const STRICT = {
  strict: true,
  allowIndefinite: false,
  allowUndefined: false,
  allowBigInt: true,
  rejectDuplicateMapKeys: true,
  retainStringBytes: true,
}
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Refuses, token by token, what the protocol never says: before anything is built of it. */
class FallowTokens extends Tokenizer {
  /** For each container that is open, the items still to come. @type {number[]} */
  #open = []
  #entriesLeft
  #encoded

  /** @param {Uint8Array} encoded @param {number} entriesMax */
  constructor(encoded, entriesMax) {
    super(encoded, STRICT)
    this.#encoded = encoded
    this.#entriesLeft = entriesMax
  }

  next() {
    const token = super.next()
    if (!ALLOWED.some((type) => Type.equals(type, token.type))) throw new Error(`${token.type.name} does not occur`)
    if (typeof token.value === 'bigint' && !inRange(token.value)) throw new Error('an integer beyond 64 bits')
    // cborg drops a leading U+FEFF and mends broken UTF-8; a text is exactly what its bytes say.
    if (token.byteValue) token.value = UTF8.decode(token.byteValue)
    if (this.#open.length > 0) this.#open[this.#open.length - 1] -= 1
    if (Type.equals(token.type, Type.array)) this.#enter(token.value, 1)
    if (Type.equals(token.type, Type.map)) this.#enter(token.value, 2)
    while (this.#open.at(-1) === 0) this.#open.pop()
    return token
  }

  /** A container begins. @param {number} entries @param {number} itemsPerEntry */
  #enter(entries, itemsPerEntry) {
    if (this.#open.length === DEPTH_MAX) throw new Error(`more than ${DEPTH_MAX} containers in one another`)
    if (entries > this.#encoded.length - this.pos()) throw new Error('it ends early')
    this.#entriesLeft -= entries
    demand(this.#entriesLeft >= 0, 'too_large', 'more entries than there may be')
    this.#open.push(entries * itemsPerEntry)
  }
}

/** The one encoding of `value`. @param {unknown} value @returns {Uint8Array} */
export const encode = (value) => encodeCbor(value, rfc8949EncodeOptions)

/**
 * The value that `encoded` is the one encoding of.
 * @param {Uint8Array} encoded
 * @param {number} bytesMax
 * @param {number} entriesMax of all its containers together
 */
export function decode(encoded, bytesMax, entriesMax = ENTRIES_MAX) {
  demand(encoded.length <= bytesMax, 'too_large', `${encoded.length} bytes, where at most ${bytesMax} may be`)
  const value = read(encoded, entriesMax)
  // The decoder takes maps in any order: only comparing with the one encoding excludes all others.
  demand(equal(encode(value), encoded), 'bad_encoding', 'not the one deterministic encoding')
  return value
}

/** @param {Uint8Array} encoded @param {number} entriesMax */
function read(encoded, entriesMax) {
  try {
    return decodeCbor(encoded, { ...STRICT, tokenizer: new FallowTokens(encoded, entriesMax) })
  } catch (error) {
    if (error instanceof Refusal) throw error
    throw new Refusal('bad_encoding', `not CBOR: ${error.message}`)
  }
}

/** @param {bigint} integer */
const inRange = (integer) => -INTEGER_MAX - 1n <= integer && integer <= INTEGER_MAX
