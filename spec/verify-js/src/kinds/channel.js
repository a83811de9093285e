import { ChannelState, claimOf } from '../channel.js'
import { verifyClaimed } from '../envelope.js'
import { atStep } from '../refusal.js'

/** Plays the steps of a channel to one side: the vouchers that it gives, and its state at the end. */
export function run({ party, channel, steps, now_ms }) {
  const state = new ChannelState(party, verifyClaimed('channel', channel))
  const vouchers = steps.flatMap((step, index) => atStep(index, () => play(state, step)) ?? [])
  const now = BigInt(now_ms)
  atStep(steps.length, () => state.expire(now))
  return {
    vouchers,
    phase: state.phase,
    promised_ucr: state.promised,
    forfeited_ucr: state.forfeited,
    payable_ucr: state.payable(now),
    held_ucr: state.held(now),
    deadline_ms: state.deadline,
  }
}

/** @param {ChannelState} state @param {any} step */
function play(state, step) {
  const now = BigInt(step.now_ms)
  switch (step.event) {
    case 'pay':
      return state.pay(step.receipt, claimOf(step.claim), now)
    case 'restate':
      return state.restate(now)
    case 'yield':
      return state.giveUp(step.ground, BigInt(step.ucr), now)
    case 'receive':
      return state.receive(verifyClaimed('voucher', step.voucher), claimOf(step.claim), now)
    case 'present':
      return state.present(verifyClaimed('voucher', step.voucher), now)
    case 'forfeit':
      return state.forfeit(step.ground, BigInt(step.ucr), now)
    case 'close':
      return state.close(step.by, now)
    case 'expire':
      return state.expire(now)
    default:
      throw new Error(`unknown step ${step.event}`)
  }
}
