/** How far two outputs of a function lie apart: whole numbers throughout, so that everybody comes to the same. */

const MILLION = 1_000_000n
const [MANTISSA_BITS, EXPONENT_MAX] = [23n, 255n]

/**
 * @typedef {{rows: bigint[][], squares: bigint[]}} Output of rows as whole multiples of 2^-149, and each one's sum of squares
 */

/**
 * The output in a piece; null if it is not what its shape says.
 * @param {any} piece
 * @returns {Output | null}
 */
export function outputOf({ shape, tensor }) {
  if (shape.length !== 2) return null
  const [height, width] = shape.map(BigInt)
  if (height === 0n || width === 0n || BigInt(tensor.length) !== 4n * height * width) return null
  const view = new DataView(tensor.buffer, tensor.byteOffset, tensor.length)
  const flat = Array.from({ length: tensor.length / 4 }, (_, i) => whole(view.getUint32(4 * i, true)))
  if (flat.includes(null)) return null
  const rows = Array.from({ length: Number(height) }, (_, i) => flat.slice(i * Number(width), (i + 1) * Number(width)))
  const squares = rows.map((row) => dot(row, row))
  return { rows, squares }
}

/**
 * In millionths, rounded up: over the rows, the largest of 1 - cosine and of 1 - the shorter's length over the longer's.
 * Two rows of zeros are alike; one of them is nothing like any other row.
 * Null if their shapes differ.
 * @param {Output} one
 * @param {Output} other
 */
export function distancePpm(one, other) {
  if (one.rows.length !== other.rows.length || one.rows[0].length !== other.rows[0].length) return null
  return one.rows.reduce((worst, row, i) => {
    const apart = rowsApart(dot(row, other.rows[i]), one.squares[i], other.squares[i])
    return apart > worst ? apart : worst
  }, 0n)
}

/** @param {bigint} product @param {bigint} a @param {bigint} b the squares of both rows */
function rowsApart(product, a, b) {
  if (a === 0n || b === 0n) return a === b ? 0n : MILLION
  const cosine = cosinePpm(product, a * b)
  const stretch = a < b ? root((MILLION * MILLION * a) / b) : root((MILLION * MILLION * b) / a)
  return MILLION - (cosine < stretch ? cosine : stretch)
}

/** A float32, by its bits, as a whole multiple of 2^-149; null if it is no finite number. @param {number} bits */
function whole(bits) {
  const exponent = (BigInt(bits) >> MANTISSA_BITS) & EXPONENT_MAX
  const mantissa = BigInt(bits) & ((1n << MANTISSA_BITS) - 1n)
  if (exponent === EXPONENT_MAX) return null
  const size = exponent === 0n ? mantissa : (mantissa | (1n << MANTISSA_BITS)) << (exponent - 1n)
  return bits >= 2 ** 31 ? -size : size
}

/** dot / sqrt(squares) in millionths, rounded down. @param {bigint} product @param {bigint} squares */
function cosinePpm(product, squares) {
  const scaled = (MILLION * product) ** 2n
  const size = root(scaled / squares)
  if (product >= 0n) return size
  return size * size * squares === scaled ? -size : -size - 1n
}

/** @param {bigint[]} a @param {bigint[]} b */
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0n)

/** The largest whole number whose square is not above `square`. @param {bigint} square */
function root(square) {
  if (square < 2n) return square
  let guess = 1n << BigInt((square.toString(2).length + 1) >> 1)
  for (;;) {
    const next = (guess + square / guess) >> 1n
    if (next >= guess) return guess
    guess = next
  }
}
