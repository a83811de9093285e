import { verifyClaimed } from '../envelope.js'
import { allowance, checkLease, checkRoster, overLent } from '../feeders.js'
import { checkShedOrder, keptUntil, zoneCap } from '../grid.js'

const [order, roster, lease] = ['shed-order', 'feeder-roster', 'feeder-lease'].map(
  (record) => (envelope) => verifyClaimed(record, envelope),
)

/** Orders to shed load, rosters and leases: which rule is asked for shows in what is given. */
export function run(input) {
  const now = BigInt(input.now_ms ?? 0)
  if (input.zone !== undefined) return { cap_w: zoneCap(input.orders.map(order), input.zone, now) }
  if (input.member !== undefined) {
    return { allowance_w: allowance(input.rosters.map(roster), input.leases.map(lease), input.member, now) }
  }
  if (input.lender !== undefined) {
    return { proof: overLent(input.leases.map(lease), roster(input.roster), input.lender).map(({ id }) => id) }
  }
  return check(input, now)
}

/** @param {any} input @param {bigint} now */
function check(input, now) {
  if (input.order !== undefined) {
    checkShedOrder(order(input.order), input.grid_keys, now)
    return { kept_until_ms: keptUntil(order(input.order)) }
  }
  if (input.lease !== undefined) checkLease(lease(input.lease), roster(input.roster), input.known.map(lease), now)
  else checkRoster(roster(input.roster), input.grid_key, input.feeder, now)
  return {}
}
