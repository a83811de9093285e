/** The shards in which the nodes of a bundle stand, and how many of them there are. */
import { blake3, hex, utf8 } from './bytes.js'

const HOUR_MS = 3_600_000

/** The first four bytes, as a number. @param {Uint8Array} bytes */
const first = (bytes) => new DataView(bytes.buffer, bytes.byteOffset).getUint32(0)

/** @param {Uint8Array} node @param {number} depth */
const shardOf = (node, depth) => 2 ** depth - 1 + Math.floor(first(node) / 2 ** (32 - depth))

/** @param {number} shard */
const depthOf = (shard) => 31 - Math.clz32(shard + 1)

/** @param {Uint8Array} node @param {number} nowMs */
function lot(node, nowMs) {
  const hour = new Uint8Array(8)
  new DataView(hour.buffer).setBigUint64(0, BigInt(Math.floor(Number(nowMs) / HOUR_MS)))
  return first(blake3(utf8('fallow/1/shard'), hour, node))
}

/** @param {Uint8Array} node @param {number} depth @param {number} nowMs */
export function shardsOf(node, depth, nowMs) {
  const drawn = lot(node, nowMs)
  const levels = Array.from({ length: depth }, (_, level) => level).reverse()
  const above = levels.filter((level) => drawn < 2 ** (32 - depth + level))
  return [depth, ...above].map((level) => shardOf(node, level))
}

/** @param {number} shard @param {Uint8Array[]} found @param {number} nowMs */
export function population(shard, found, nowMs) {
  const nodes = [...new Map(found.map((node) => [hex(node), node])).values()]
  const own = nodes.filter((node) => shardOf(node, depthOf(shard)) === shard)
  if (own.length <= 16) return own.length
  const lots = own.map((node) => lot(node, nowMs)).sort((a, b) => a - b)
  return Math.max(own.length, Math.floor((15 * 2 ** 32) / lots[15]))
}

/** @param {number} shard @param {Uint8Array[]} found @param {number} nowMs */
export function safeDepth(shard, found, nowMs) {
  const crowd = population(shard, found, nowMs) * 2 ** depthOf(shard)
  let depth = 0
  while (depth < 24 && crowd > 128 * 2 ** depth) depth += 1
  return depth
}
