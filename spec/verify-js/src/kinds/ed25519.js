import { verify } from '../ed25519.js'

/** Checks one bare signature. */
export function run({ key, message, signature }) {
  verify(signature, message, key)
  return {}
}
