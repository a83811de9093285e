/** The notation of the vectors: JSON in which bytes are {"b": hex} and integers beyond 2^53 - 1 are {"i": decimal}. */
import { hex, unhex } from './bytes.js'

/** The value that the notation stands for. @param {any} json @returns {any} */
export function fromNotation(json) {
  if (Array.isArray(json)) return json.map(fromNotation)
  if (json === null || typeof json !== 'object') return safe(json)
  const keys = Object.keys(json)
  if (keys.length === 1 && keys[0] === 'b') return unhex(json.b)
  if (keys.length === 1 && keys[0] === 'i') return BigInt(json.i)
  return Object.fromEntries(keys.map((key) => [key, fromNotation(json[key])]))
}

/** How the vectors write `value`. Fields that are undefined are absent. @param {any} value @returns {any} */
export function toNotation(value) {
  if (value instanceof Uint8Array) return { b: hex(value) }
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : { i: String(value) }
  if (Array.isArray(value)) return value.map(toNotation)
  if (value === null || typeof value !== 'object') return safe(value)
  const present = Object.entries(value).filter(([, item]) => item !== undefined)
  return Object.fromEntries(present.map(([key, item]) => [key, toNotation(item)]))
}

/** @param {any} scalar */
function safe(scalar) {
  if (typeof scalar === 'number' && !Number.isSafeInteger(scalar)) throw new Error(`${scalar} is no exact integer`)
  return scalar
}
