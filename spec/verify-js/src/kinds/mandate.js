import { verifyClaimed } from '../envelope.js'
import { checkEpoch, checkMandate, couldJudge } from '../identity.js'

/** Checks for whom a node works, or could have judged. */
export function run({ mandate, node, role, now_ms, seen_epoch, created_ms }) {
  const signed = verifyClaimed('mandate', mandate)
  if (created_ms !== undefined) return { could_judge: couldJudge(signed, node, created_ms, now_ms) }
  checkMandate(signed, node, role, now_ms)
  if (seen_epoch !== undefined) checkEpoch(signed.fields, seen_epoch)
  return { owner: signed.fields.owner, epoch: signed.fields.epoch }
}
