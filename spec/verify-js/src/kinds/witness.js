import { interactive } from '../profiles.js'
import { believed, checkWitness, heard } from '../witnesses.js'

/** Checks one statement, or gives the figures that a client goes by. */
export function run({ witness, profile, witnesses, node, owner, now_ms, own_rtt_us }) {
  if (witness !== undefined) return { owner: checkWitness(witness, node, now_ms).owner }
  const figures = believed(profile, heard(witnesses, node, owner, now_ms), own_rtt_us)
  return { figures, interactive: interactive(figures) }
}
