/** The evidence about one piece of work, sorted out: whose word it is, which order it belongs to, what does not count. */
import { compare, equal, hex } from './bytes.js'
import { checkMandate } from './identity.js'
import { open } from './openings.js'
import { drawCommittee } from './policies.js'
import { demand, Refusal } from './refusal.js'
import { checkCommitment } from './transcript.js'

/** @typedef {import('./envelope.js').Signed} Signed */
/**
 * @typedef {{client: Uint8Array, bundle: Uint8Array, text: string, policy: import('./policies.js').Policy, nonce: Uint8Array, anchors: Uint8Array[]}} Question
 */
/**
 * @typedef {{order: Signed, node: Uint8Array, owner: Uint8Array, receipts: Signed[], equivocal: Signed[], attestation?: Signed, opened?: any}} Part
 */

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
  const who = { parties: new Set([hex(question.client)]), anchors: new Set(question.anchors.map(hex)) }
  return {
    question,
    who,
    tolerance: manifest.fields.tolerance,
    parts: orders.map((order) => partOf(order, of, openings)),
  }
}

/** @param {Signed} order @param {(record: string) => Signed[]} of @param {any[]} openings @returns {Part} */
function partOf(order, of, openings) {
  const answers = ({ signer, fields }) => equal(fields.order, order.id) && equal(signer, order.fields.executor)
  const { chain, equivocal } = chainOf(of('receipt').filter(answers))
  const about = ({ fields }) => order.fields.checks !== undefined && equal(fields.subject, order.fields.checks)
  const attestations = of('attestation').filter(answers).filter(about)
  return {
    order,
    node: order.fields.executor,
    owner: ownerOf(order, of('accept').filter(answers), of('mandate')),
    receipts: chain,
    equivocal,
    attestation: attestations.length === 1 ? attestations[0] : undefined,
    opened: openAny(openings, order, chain),
  }
}

/**
 * The plaintext: of several openings whichever fits, since all that fit show the same.
 * @param {any[]} openings
 * @param {Signed} order
 * @param {Signed[]} receipts
 */
function openAny(openings, order, receipts) {
  const own = openings.filter((opening) => equal(opening.order, order.id))
  const chosen = own.find((opening) => holds(() => open(opening, order, receipts))) ?? own[0]
  return chosen && open(chosen, order, receipts)
}

/** The receipts from the first on, and those that contradict one another after it. @param {Signed[]} receipts */
function chainOf(receipts) {
  const chain = []
  for (;;) {
    const next = receipts.filter(({ fields }) => comesNext(chain.at(-1), fields))
    if (next.length !== 1) return { chain, equivocal: next }
    chain.push(next[0])
  }
}

/** @param {Signed | undefined} last @param {any} receipt */
function comesNext(last, { sequence, previous, first_token, amount_ucr }) {
  if (last === undefined) return BigInt(sequence) === 0n && previous === undefined && first_token === 0
  const before = last.fields
  return (
    BigInt(sequence) === BigInt(before.sequence) + 1n &&
    previous !== undefined &&
    equal(previous, last.id) &&
    first_token === before.first_token + before.tokens &&
    BigInt(amount_ucr) >= BigInt(before.amount_ucr)
  )
}

/** The owner under whose mandate the node accepted; the node itself if there is none, or more than one. */
function ownerOf({ fields }, accepts, mandates) {
  const role = fields.entry === 'score' ? 'checker' : 'executor'
  const named = mandates.filter(({ id }) => accepts.some((accept) => equal(accept.fields.mandate, id)))
  const holding = named.filter((mandate) =>
    holds(() => checkMandate(mandate, fields.executor, role, fields.created_ms)),
  )
  const owners = new Map(holding.map((mandate) => [hex(mandate.fields.owner), mandate.fields.owner]))
  return owners.size === 1 ? [...owners.values()][0] : fields.executor
}

/** Owners of the committee for one receipt; nobody if there are too few who are no party to it. */
export function committeeFor({ question, who }, part, receipt) {
  const parties = [...who.parties]
    .map((party) => Uint8Array.from(Buffer.from(party, 'hex')))
    .concat([part.owner, part.node])
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
