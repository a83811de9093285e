/** The verdict that follows from a case, but for the reasons, which are for people. */
import { compare, hex } from './bytes.js'
import { judgeFunction } from './functions.js'
import { EVIDENCE_MAX, FINDINGS_MAX } from './limits.js'
import { demand } from './refusal.js'
import { judgeText } from './texts.js'

/** From best to worst. */
const STANDINGS = ['upheld', 'silent', 'undecided', 'refuted']

/** @param {ReturnType<typeof import('./cases.js').gather>} evidence */
export function judge(evidence) {
  const executors = evidence.parts.filter(({ order }) => order.fields.checks === undefined)
  demand(executors.length > 0, 'bad_record', 'no order for the work itself')
  const judgeWork = executors[0].order.fields.entry === 'call' ? judgeFunction : judgeText
  const { outcome, rulings } = judgeWork(evidence, executors)
  const findings = findingsOf(evidence.parts, rulings)
  const { bundle, text, nonce } = evidence.question
  const owned = evidence.parts.filter(({ owner }) => owner)
  const owners = new Map(owned.map(({ owner }) => [hex(owner), owner]))
  const anchors = [...owners]
    .filter(([name]) => evidence.who.anchors.has(name))
    .map(([, owner]) => owner)
    .sort(compare)
  return { subject: executors[0].order.id, bundle, policy: text, commitment_nonce: nonce, anchors, outcome, findings }
}

/** One for each role and node, by role, then key. */
function findingsOf(parts, rulings) {
  const accounts = new Map()
  for (const part of parts) {
    const role = part.order.fields.checks === undefined ? 'executor' : 'checker'
    const name = `${role} ${hex(part.node)}`
    accounts.set(name, [...(accounts.get(name) ?? []), part])
  }
  demand(accounts.size <= FINDINGS_MAX, 'too_large', 'more members than a verdict names')
  return [...accounts]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, own]) => findingOf(name.split(' ')[0], own, rulings))
}

/** @param {string} role @param {any[]} parts of one member */
function findingOf(role, parts, rulings) {
  const ruling = ({ id }) => rulings.get(hex(id))
  const receipts = parts.flatMap((part) => part.receipts)
  const silent = parts.filter((part) => part.receipts.length === 0).map(({ order }) => order)
  const standings = [...receipts, ...silent].map((signed) => ruling(signed).standing)
  if (parts.some(({ equivocal }) => equivocal.length > 0)) standings.push('refuted')
  const due = receipts.filter((receipt) => ruling(receipt).due)
  const added = parts.flatMap((part) => part.receipts.map((receipt, i) => [receipt, addedUcr(part.receipts, i)]))
  const sum = (wanted) => added.reduce((total, [receipt, ucr]) => (wanted(receipt) ? total + ucr : total), 0n)
  return {
    node: parts[0].node,
    owner: parts[0].owner ?? parts[0].node,
    role,
    standing: STANDINGS[Math.max(...standings.map((one) => STANDINGS.indexOf(one)))],
    evidence: idsOf(
      parts.flatMap(({ receipts, equivocal, attestation }) => [
        ...receipts,
        ...equivocal,
        ...(attestation ? [attestation] : []),
      ]),
    ),
    due_for: idsOf(due),
    due_ucr: sum((receipt) => ruling(receipt).due),
    withheld_ucr: sum((receipt) => !ruling(receipt).due),
  }
}

/** What one receipt of a chain added to its order's amount. @param {any[]} chain @param {number} place */
const addedUcr = (chain, place) =>
  BigInt(chain[place].fields.amount_ucr) - BigInt(place ? chain[place - 1].fields.amount_ucr : 0)

/** @param {{id: Uint8Array}[]} records */
function idsOf(records) {
  const ids = [...new Map(records.map(({ id }) => [hex(id), id])).values()].sort(compare)
  demand(ids.length <= EVIDENCE_MAX, 'too_large', 'more records of one member than a verdict names')
  return ids
}
