import { verifyClaimed } from '../envelope.js'
import { checkEpoch, checkMandate } from '../identity.js'

/** Checks for whom a node works. */
export function run({ mandate, node, role, now_ms, seen_epoch }) {
  const signed = verifyClaimed('mandate', mandate)
  checkMandate(signed, node, role, now_ms)
  if (seen_epoch !== undefined) checkEpoch(signed.fields, seen_epoch)
  return { owner: signed.fields.owner, epoch: signed.fields.epoch }
}
