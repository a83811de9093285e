/** Values held against the rules of fallow.cddl: what a record or message may contain is read from there, not coded here. */
import { readFileSync } from 'node:fs'
import { parse } from './cddl.js'
import { utf8 } from './bytes.js'
import { CROSS_RULES } from './cross-rules.js'
import { Refusal } from './refusal.js'
import { SPEC } from './spec.js'

const RULES = parse(readFileSync(new URL('fallow.cddl', SPEC), 'utf8'))
const strange = Object.keys(CROSS_RULES).find((name) => !RULES.has(name))
if (strange) throw new Error(`fallow.cddl has no rule ${strange}`)

/** CDDL's own names (RFC 8610, appendix D). @type {Record<string, (value: unknown) => boolean>} */
const PRELUDE = {
  any: () => true,
  bool: (value) => typeof value === 'boolean',
  bstr: (value) => value instanceof Uint8Array,
  bytes: (value) => value instanceof Uint8Array,
  int: isInteger,
  nil: (value) => value === null,
  null: (value) => value === null,
  text: (value) => typeof value === 'string',
  tstr: (value) => typeof value === 'string',
  uint: (value) => isInteger(value) && value >= 0,
}

/** What does not fit a rule; it becomes a refusal where a whole value is known not to fit. */
class Misfit extends Error {}

/** The rule of that name. @param {string} name */
export function rule(name) {
  const found = RULES.get(name)
  if (found === undefined) throw new Error(`fallow.cddl has no rule ${name}`)
  return found
}

/**
 * `value` as the rule reads it, without the extensions that it ignores; refused with bad_record if it does not fit.
 * @param {string} name
 * @param {unknown} value
 * @returns {any}
 */
export function fit(name, value) {
  rule(name)
  try {
    return fitName(name, value)
  } catch (error) {
    if (error instanceof Misfit) throw new Refusal('bad_record', `${name}: ${error.message}`)
    throw error
  }
}

/** @param {boolean} holds @param {string} why */
function expect(holds, why) {
  if (!holds) throw new Misfit(why)
}

/** @param {string} name @param {unknown} value */
function fitName(name, value) {
  if (!RULES.has(name)) {
    expect(PRELUDE[name](value), `not ${name}`)
    return value
  }
  const read = fitType(rule(name), value)
  const problem = Object.hasOwn(CROSS_RULES, name) && CROSS_RULES[name](read)
  expect(!problem, String(problem))
  return read
}

/** @param {any} type @param {any} value @returns {any} */
function fitType(type, value) {
  switch (type.kind) {
    case 'name':
      return fitName(type.name, value)
    case 'literal':
      expect(isInteger(value) ? BigInt(value) === type.value : value === type.value, `not ${type.value}`)
      return value
    case 'range':
      expect(isInteger(value) && type.least <= value && value <= type.most, `not in ${type.least}..${type.most}`)
      return value
    case 'size':
      fitType(type.of, value)
      expect(type.least <= length(value) && length(value) <= type.most, `not of ${type.least} to ${type.most} bytes`)
      return value
    case 'regexp':
      fitType(type.of, value)
      expect(new RegExp(`^(?:${type.pattern})$`, 'su').test(value), `not like ${type.pattern}`)
      return value
    case 'cbor': // what is inside is read by whoever opens it, by the bounds that hold there
      return fitType(type.of, value)
    case 'choice':
      return fitChoice(type.options, value)
    case 'list':
      return fitList(type.members, value)
    case 'map':
      return fitMap(type.members, value)
    default:
      throw new Error(`nothing decoded fits a ${type.kind}`)
  }
}

/** @param {any[]} options @param {unknown} value */
function fitChoice(options, value) {
  const problems = []
  for (const option of options) {
    try {
      return fitType(option, value)
    } catch (error) {
      if (!(error instanceof Misfit)) throw error
      problems.push(error.message)
    }
  }
  throw new Misfit(problems.join('; '))
}

/**
 * Members take items greedily, in turn: no list of the protocol needs more.
 * @param {any[]} members
 * @param {unknown} value
 */
function fitList(members, value) {
  expect(Array.isArray(value), 'not a list')
  const items = /** @type {unknown[]} */ (value)
  const read = []
  for (const [index, member] of members.entries()) {
    const rest = BigInt(items.length - read.length)
    const count = index < members.length - 1 ? member.most : rest
    expect(member.least <= count && (member.most === null || count <= member.most), `a list of ${items.length} items`)
    expect(count <= rest, `a list of ${items.length} items`)
    for (let i = 0n; i < count; i++) read.push(fitType(member.of, items[read.length]))
  }
  expect(read.length === items.length, `a list of ${items.length} items`)
  return read
}

/** @param {any[]} members @param {any} value */
function fitMap(members, value) {
  expect(isMap(value), 'not a map')
  const all = members.flatMap(ungrouped)
  const named = all.filter((member) => typeof member.key === 'string')
  const read = {}
  for (const { key, least, of } of named) {
    if (Object.hasOwn(value, key)) read[key] = inField(key, () => fitType(of, value[key]))
    else expect(least === 0n, `${key} is missing`)
  }
  for (const key of Object.keys(value)) {
    if (named.some((member) => member.key === key)) continue
    const takers = all.filter((member) => member.key !== null && typeof member.key === 'object')
    expect(
      takers.some((taker) => fits(taker.key, key) && fits(taker.of, value[key])),
      `unknown field ${key}`,
    )
  }
  return read
}

/** The members that stand in a map in place of a named group. @param {any} member @returns {any[]} */
function ungrouped(member) {
  if (member.key !== null) return [member]
  const group = member.of.kind === 'name' ? rule(member.of.name) : member.of
  if (group.kind !== 'group') throw new Error('a map has a member without a key')
  return group.members.map((inner) => (member.least === 0n ? { ...inner, least: 0n } : inner))
}

/** @param {string} key @param {() => unknown} read */
function inField(key, read) {
  try {
    return read()
  } catch (error) {
    if (error instanceof Misfit) throw new Misfit(`${key}: ${error.message}`)
    throw error
  }
}

/** @param {any} type @param {unknown} value */
function fits(type, value) {
  try {
    fitType(type, value)
    return true
  } catch (error) {
    if (error instanceof Misfit) return false
    throw error
  }
}

/** @param {unknown} value */
function isInteger(value) {
  return typeof value === 'number' || typeof value === 'bigint'
}

/** @param {unknown} value */
function isMap(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)
}

/** In bytes, of text as well (RFC 8610, 3.8.1). @param {string | Uint8Array} value */
const length = (value) => (typeof value === 'string' ? utf8(value).length : value.length)
