/** The evidence about one piece of work, sorted out: whose word it is, which order it belongs to, what does not count. */
import { compare, equal, hex } from './bytes.js'
import { encode } from './cbor.js'
import { checkMandate } from './identity.js'
import { FINDINGS_MAX, OUTPUT_TOKENS_MAX, WINDOW_TOKENS } from './limits.js'
import { askedOf, open } from './openings.js'
import { drawCommittee } from './policies.js'
import { isPriced } from './receipts.js'
import { demand, Refusal } from './refusal.js'
import { checkCommitment } from './transcript.js'

/** @typedef {import('./envelope.js').Signed} Signed */
/**
 * @typedef {{client: Uint8Array, bundle: Uint8Array, text: string, policy: import('./policies.js').Policy, nonce: Uint8Array, anchors: Uint8Array[]}} Question
 */
/**
 * @typedef {{order: Signed, node: Uint8Array, owner?: Uint8Array, receipts: Signed[], equivocal: Signed[], attestation?: Signed, asked?: any, opened?: any}} Part
 */

/** Of this work, in one case. */
const ORDERS_MAX = 2 * FINDINGS_MAX
/** Of one order that count. */
const WINDOWS_MAX = Math.floor(OUTPUT_TOKENS_MAX / WINDOW_TOKENS) + 1

/** The case that the records make. @param {Question} question @param {Signed[]} records @param {any[]} openings */
export function gather(question, records, openings) {
  const distinct = [...new Map(records.map((signed) => [hex(signed.id), signed])).values()]
  const of = (record) => distinct.filter((signed) => signed.record === record)
  const manifest = of('manifest').find(({ id }) => equal(id, question.bundle))
  demand(manifest !== undefined, 'unknown_bundle', 'the manifest is not in the evidence')
  const commitment = checkCommitment(question.nonce, question.text)
  const isOurs = ({ signer, fields }) =>
    equal(signer, question.client) &&
    equal(fields.check_commitment, commitment) &&
    equal(fields.bundle, question.bundle)
  const orders = of('job-order').filter(isOurs).sort(byAge)
  demand(orders.length > 0, 'bad_record', 'no order was made under this commitment')
  demand(orders.length <= ORDERS_MAX, 'too_large', `more than ${ORDERS_MAX} orders of one work`)
  const referred = orders.flatMap(({ fields }) => [fields.checks, fields.continues?.receipt])
  const known = new Set(referred.filter((id) => id !== undefined).map(hex))
  const who = { parties: new Set([hex(question.client)]), anchors: new Set(question.anchors.map(hex)) }
  return {
    question,
    who,
    tolerance: manifest.fields.tolerance,
    parts: orders.map((order) => partOf(order, of, openings, known)),
  }
}

/** One order by itself, whatever checked it. @param {Signed} order @param {Signed[]} records @param {any[]} openings */
export function lonePart(order, records, openings) {
  return partOf(order, (record) => records.filter((signed) => signed.record === record), openings, new Set())
}

/**
 * @param {Signed} order
 * @param {(record: string) => Signed[]} of
 * @param {any[]} openings
 * @param {Set<string>} known ids of receipts that the client's orders name
 * @returns {Part}
 */
function partOf(order, of, openings, known) {
  const answers = (record) =>
    of(record).filter(({ fields, signer }) => equal(fields.order, order.id) && equal(signer, order.fields.executor))
  const { chain, contradicting } = chainOf(order.fields, answers('receipt'), known)
  const about = ({ fields }) => order.fields.checks !== undefined && equal(fields.subject, order.fields.checks)
  const attestations = toldOnce(answers('attestation').filter(about), known)
  return {
    order,
    node: order.fields.executor,
    owner: ownerOf(order, answers('accept'), of('mandate')),
    receipts: chain,
    equivocal: attestations.length > 1 ? [...contradicting, ...attestations.slice(0, 2)] : contradicting,
    attestation: attestations.length === 1 ? attestations[0] : undefined,
    asked: fitting(openings, order, (opening) => askedOf(opening, order)),
    opened: fitting(openings, order, (opening) => open(opening, order, chain)),
  }
}

/**
 * The plaintext: of several openings whichever fits, since all that fit show the same; what does not fit shows nothing.
 * @param {any[]} openings
 * @param {Signed} order
 * @param {(opening: any) => any} read
 */
function fitting(openings, order, read) {
  const found = openings.find((opening) => equal(opening.order, order.id) && holds(() => read(opening)))
  return found && read(found)
}

/**
 * The receipts from the first on, and two of those that contradict one another after it.
 * @param {any} order
 * @param {Signed[]} receipts
 * @param {Set<string>} known
 */
function chainOf(order, receipts, known) {
  const chain = []
  for (;;) {
    const last = chain.at(-1)
    const twins = receipts.filter((receipt) => last && said(receipt) === said(last)).map(({ id }) => hex(id))
    const next = toldOnce(
      receipts.filter(({ fields }) => isOrdered(order, fields) && comesNext(last?.fields, twins, fields)),
      known,
    )
    if (next.length !== 1 || chain.length === WINDOWS_MAX)
      return { chain, contradicting: next.length > 1 ? next.slice(0, 2) : [] }
    if (!isPriced(order, next[0].fields)) return { chain, contradicting: [] }
    chain.push(next[0])
  }
}

/** Whether a receipt is for no more tokens and pay than were ordered. */
const isOrdered = ({ amount_ucr_max, planned_tokens }, { amount_ucr, first_token, tokens }) =>
  BigInt(amount_ucr) <= BigInt(amount_ucr_max) && BigInt(first_token) + BigInt(tokens) <= BigInt(planned_tokens)

/** @param {any} last the receipt before, if any @param {string[]} twins ids of all that say what it says @param {any} receipt */
function comesNext(last, twins, { sequence, previous, first_token, amount_ucr }) {
  if (last === undefined) return BigInt(sequence) === 0n && previous === undefined && first_token === 0
  return (
    last.end === 'open' &&
    last.tokens > 0 &&
    BigInt(sequence) === BigInt(last.sequence) + 1n &&
    previous !== undefined &&
    twins.includes(hex(previous)) &&
    first_token === last.first_token + last.tokens &&
    BigInt(amount_ucr) >= BigInt(last.amount_ucr)
  )
}

/** What a record says, however often it was signed. @param {Signed} signed */
const said = ({ fields }) => hex(encode(fields))

/** One of those that say the same: the one that the client's orders name, or the lowest id. @param {Signed[]} signed */
function toldOnce(signed, known) {
  const rank = (a, b) => Number(known.has(hex(b.id))) - Number(known.has(hex(a.id))) || compare(a.id, b.id)
  const chosen = new Map()
  for (const one of [...signed].sort(rank)) if (!chosen.has(said(one))) chosen.set(said(one), one)
  return [...chosen.values()]
}

/** The owner under whose mandate the node accepted; none if it named none, or more than one. */
function ownerOf({ fields }, accepts, mandates) {
  const role = fields.entry === 'score' ? 'checker' : 'executor'
  const named = mandates.filter(({ id }) => accepts.some((accept) => equal(accept.fields.mandate, id)))
  const holding = named.filter((mandate) =>
    holds(() => checkMandate(mandate, fields.executor, role, fields.created_ms)),
  )
  const owners = new Map(holding.map((mandate) => [hex(mandate.fields.owner), mandate.fields.owner]))
  return owners.size === 1 ? [...owners.values()][0] : undefined
}

/** Owners of the committee for one receipt; nobody if there are too few who are no party to it. */
export function committeeFor({ question, who }, part, receipt) {
  const parties = [...who.parties]
    .map((party) => Uint8Array.from(Buffer.from(party, 'hex')))
    .concat(part.owner ? [part.owner, part.node] : [part.node])
  const lot = {
    nonce: question.nonce,
    receipt,
    candidates: part.order.fields.candidates,
    parties,
    count: question.policy.n,
  }
  try {
    return new Set(drawCommittee(lot).map(hex))
  } catch (error) {
    if (error instanceof Refusal) return new Set()
    throw error
  }
}

/** @param {() => void} check */
function holds(check) {
  try {
    check()
    return true
  } catch (error) {
    if (error instanceof Refusal) return false
    throw error
  }
}

/** @param {Signed} a @param {Signed} b */
function byAge(a, b) {
  const [x, y] = [a, b].map(({ fields }) => BigInt(fields.created_ms))
  return x < y ? -1 : x > y ? 1 : compare(a.id, b.id)
}
