/**
 * What the grid asks of a zone. Whatever stands in an order holds in true time, which nobody knows better than to the
 * clocks' skew: so the strictest of all that may hold now is kept to. All times are BigInt.
 */
import { equal, hex } from './bytes.js'
import { SHED_AHEAD_MS_MAX, SHED_MS_MAX, SKEW_MS } from './limits.js'
import { demand } from './refusal.js'

const SKEW = BigInt(SKEW_MS)

/** @typedef {import('./envelope.js').Signed} Signed */

/**
 * Returns if a key that the owner trusts signed the order, and it may still matter.
 * @param {Signed} order
 * @param {Uint8Array[]} grid_keys
 * @param {bigint} now
 */
export function checkShedOrder(order, grid_keys, now) {
  demand(
    grid_keys.some((key) => equal(key, order.signer)),
    'bad_signature',
    'not by a grid key that the owner trusts',
  )
  demand(now <= keptUntil(order), 'expired', 'the order is over')
  demand(BigInt(order.fields.issued_ms) <= now + SKEW, 'expired', 'issued in the future')
}

/** Until when the order must be kept, lest what it replaced is brought again. @param {Signed} order */
export const keptUntil = ({ fields }) => BigInt(fields.issued_ms) + BigInt(SHED_AHEAD_MS_MAX + SHED_MS_MAX) + SKEW

/**
 * The most that the zone may draw, in watts; null if nothing is asked of it.
 * @param {Signed[]} orders
 * @param {string} zone
 * @param {bigint} now
 */
export function zoneCap(orders, zone, now) {
  const inForce = standing(orders.filter(({ fields }) => fields.zone === zone))
  const edges = inForce.flatMap(({ start_ms, end_ms }) => [BigInt(start_ms), BigInt(end_ms)])
  const caps = possibleInstants(edges, now).flatMap((at) => capAt(inForce, at))
  return caps.length > 0 ? Math.min(...caps) : null
}

/**
 * The true times that the clock allows: the first, and each at which something changes.
 * @param {bigint[]} edges
 * @param {bigint} now
 */
export const possibleInstants = (edges, now) => [
  now - SKEW,
  ...edges.filter((edge) => now - SKEW < edge && edge <= now + SKEW),
]

/** Whether `at` lies in the time from `from`, to `to` excluded. */
export const during = (from, at, to) => BigInt(from) <= at && at < BigInt(to)

/** Of each grid key's event those of the highest sequence, less the cancelled. @param {Signed[]} orders */
function standing(orders) {
  const event = ({ signer, fields }) => `${hex(signer)} ${fields.event}`
  const latest = new Map()
  for (const order of orders) {
    const sequence = BigInt(order.fields.sequence)
    if (sequence >= (latest.get(event(order)) ?? 0n)) latest.set(event(order), sequence)
  }
  const last = orders.filter((order) => BigInt(order.fields.sequence) === latest.get(event(order)))
  return last.map(({ fields }) => fields).filter(({ cancelled }) => !cancelled)
}

/**
 * The cap of the most urgent orders in force; none if there are none.
 * @param {any[]} orders
 * @param {bigint} at
 * @returns {number[]}
 */
function capAt(orders, at) {
  const inForce = orders.filter(({ start_ms, end_ms }) => during(start_ms, at, end_ms))
  const urgent = inForce.filter(({ priority }) => inForce.every((other) => BigInt(priority) <= BigInt(other.priority)))
  return urgent.length > 0 ? [Math.min(...urgent.map(({ cap_w }) => cap_w))] : []
}
