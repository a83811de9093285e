import { checkPublished } from '../profiles.js'

/** Checks a value of the DHT. */
export function run({ key, value, now_ms }) {
  checkPublished(key, value, now_ms)
  return {}
}
