/** Bytes as text: base58 (Bitcoin's alphabet), and base32 and base64url without padding (RFC 4648). */
const BASE58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567'

/** @param {Uint8Array} bytes */
export function base58(bytes) {
  let number = BigInt(`0x00${Buffer.from(bytes).toString('hex')}`)
  let text = ''
  for (; number > 0n; number /= 58n) text = BASE58[Number(number % 58n)] + text
  const zeros = bytes.findIndex((byte) => byte !== 0)
  return '1'.repeat(zeros < 0 ? bytes.length : zeros) + text
}

/** The bytes of a base58 text, or null if it is none. @param {string} text @returns {Uint8Array | null} */
export function unbase58(text) {
  let number = 0n
  for (const digit of text) {
    if (!BASE58.includes(digit)) return null
    number = number * 58n + BigInt(BASE58.indexOf(digit))
  }
  const digits = number === 0n ? '' : number.toString(16)
  const zeros = /^1*/.exec(text)[0].length
  return Uint8Array.from(
    Buffer.from('00'.repeat(zeros) + digits.padStart(digits.length + (digits.length % 2), '0'), 'hex'),
  )
}

/** @param {Uint8Array} bytes */
export function base32(bytes) {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('')
  return (bits.match(/.{1,5}/g) ?? []).map((five) => BASE32[parseInt(five.padEnd(5, '0'), 2)]).join('')
}

/**
 * The bytes of a base32 text, or null if it is not the one text of those bytes.
 * @param {string} text
 * @returns {Uint8Array | null}
 */
export function unbase32(text) {
  const fives = [...text].map((digit) => BASE32.indexOf(digit))
  if (fives.includes(-1)) return null
  const bits = fives.map((five) => five.toString(2).padStart(5, '0')).join('')
  const bytes = Uint8Array.from(bits.match(/.{8}/g) ?? [], (byte) => parseInt(byte, 2))
  return base32(bytes) === text ? bytes : null
}

/** @param {Uint8Array} bytes */
export const base64url = (bytes) => Buffer.from(bytes).toString('base64url')
