import { verify } from '../envelope.js'
import { checkProfile, interactive } from '../profiles.js'

/** Checks what a node says of itself, and whether a person can wait for it. */
export function run({ profile, record, node, now_ms }) {
  const signed = verify(record, profile, node)
  checkProfile(signed, node, now_ms)
  return record === 'connectivity-profile' ? { interactive: interactive(signed.fields) } : {}
}
