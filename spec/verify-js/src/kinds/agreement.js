import { hex, unhex } from '../bytes.js'
import { verifyClaimed } from '../envelope.js'
import { judgeResults, judgeWindow } from '../judging.js'
import { distancePpm, outputOf } from '../outputs.js'
import { parsePolicy } from '../policies.js'

/** The distance of two outputs, or the judgement on a window or on a function's results. */
export function run(input) {
  if (input.one !== undefined) return { distance_ppm: distanceOf(input) }
  const who = { parties: new Set(input.parties.map(hex)), anchors: new Set(input.anchors.map(hex)) }
  const judged = [parsePolicy(input.policy), input.tolerance, who]
  const { outcome, against, carried_good, use } =
    input.results !== undefined ? judgeResults(input.results, ...judged) : judgeWindow(windowOf(input), ...judged)
  return { outcome, against: [...against].sort().map(unhex), carried_good, use: use?.node }
}

function distanceOf({ one, other }) {
  const [a, b] = [outputOf(one), outputOf(other)]
  return a && b && distancePpm(a, b)
}

function windowOf({ receipt, executor, checks, top_p_ppm, carried_values }) {
  const attested = ({ attestation }) => attestation && verifyClaimed('attestation', attestation)
  const read = checks.map((check) => ({ ...check, attestation: attested(check) }))
  return { receipt: verifyClaimed('receipt', receipt), executor, checks: read, top_p_ppm, carried_values }
}
