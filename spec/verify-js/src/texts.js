/** Judging a text: window by window, and then whether accepted windows lead from its beginning to its end. */
import { isDeepStrictEqual } from 'node:util'
import { equal, hex } from './bytes.js'
import { committeeFor } from './cases.js'
import { isParty, judgeWindow, keysOf } from './judging.js'
import { draws } from './policies.js'

const UPHELD = { standing: 'upheld', due: true }
const UNDECIDED = { standing: 'undecided', due: false }
const REFUTED = { standing: 'refuted', due: false }
const SILENT = { standing: 'silent', due: false }

/**
 * The outcome, and the ruling on each receipt, or on the order that brought none.
 * @param {any} evidence
 * @param {any[]} executors
 */
export function judgeText(evidence, executors) {
  const windows = new Map()
  for (const part of executors) {
    for (const receipt of part.receipts) windows.set(hex(receipt.id), windowOf(evidence, part, receipt))
  }
  if (evidence.question.policy.kind === 'adaptive') doubtWhatFollows(executors, windows)
  const all = [...windows.values()]
  const rulings = new Map()
  const refuted = new Set(all.filter(({ outcome }) => outcome === 'rejected').map(({ part }) => hex(part.node)))
  for (const window of all) {
    const unbacked = window.receipt.fields.tokens === 0 && refuted.has(hex(window.part.node))
    rulings.set(hex(window.receipt.id), unbacked ? UNDECIDED : onExecutor(window))
    for (const check of window.checks) {
      const ruling = onChecker(window, check, evidence.who)
      for (const { id } of [check.order, ...check.receipts]) rulings.set(hex(id), ruling)
    }
  }
  for (const { order, receipts } of evidence.parts) {
    const beside = order.fields.checks === undefined ? SILENT : UNDECIDED
    for (const { id } of [order, ...receipts]) if (!rulings.has(hex(id))) rulings.set(hex(id), beside)
  }
  return { outcome: outcomeOf(all, windows, executors), rulings }
}

/** After a window that was refuted, nothing of the same order is taken as it is. */
function doubtWhatFollows(executors, windows) {
  for (const { receipts } of executors) {
    let refuted = false
    for (const { id, fields } of receipts) {
      const window = windows.get(hex(id))
      if (refuted && !window.drawn && fields.tokens > 0) windows.set(hex(id), { ...window, outcome: 'inconclusive' })
      refuted ||= window.outcome === 'rejected'
    }
  }
}

function outcomeOf(all, windows, executors) {
  const beginning = executors[0].order.fields.input_tokens
  if (all.some((window) => endsText(window) && leadsBack(window, windows, beginning))) return 'accepted'
  return all.some(({ outcome }) => outcome === 'rejected') ? 'rejected' : 'inconclusive'
}

/** One window, where it stands in the sequence, and what became of it. */
function windowOf(evidence, part, receipt) {
  const { policy, nonce } = evidence.question
  const { fields } = receipt
  const start = part.order.fields.input_tokens + fields.first_token
  const asked = evidence.parts.filter((check) => isAbout(check, part, receipt))
  const window = {
    part,
    receipt,
    checks: asked,
    start,
    end: start + fields.tokens,
    drawn: draws(policy, nonce, receipt.id) || (policy.kind === 'adaptive' && fields.tokens > 0 && asked.length > 0),
  }
  if (fields.tokens === 0 || !window.drawn)
    return { ...window, outcome: 'accepted', against: new Set(), checkedFrom: start }
  const called = policy.kind === 'committee' ? committeeFor(evidence, part, receipt.id) : null
  const checks = called ? asked.filter(({ owner }) => owner && called.has(hex(owner))) : asked
  const judgement = judgeWindow(
    { receipt, executor: part, checks: checks.map(asCheck), top_p_ppm: part.order.fields.parameters.top_p_ppm },
    policy,
    evidence.tolerance,
    evidence.who,
  )
  if (judgement.outcome === 'rejected' && !isShown(part, checks, judgement))
    return { ...window, checks, outcome: 'inconclusive', against: new Set(), checkedFrom: start }
  return { ...window, checks, ...judgement, checkedFrom: checkedFrom(window, checks, judgement) }
}

/** Whether those who refute the window are shown to have been given its very tokens. */
const isShown = (part, checks, { against }) =>
  part.opened !== undefined && checks.every(({ node, opened }) => against.has(hex(node)) || opened !== undefined)

const asCheck = ({ node, owner, order, attestation }) => ({
  node,
  owner,
  claimed: order.fields.planned_tokens,
  attestation,
})

/** The position from which on everybody who confirms the window confirms what leads to it, too. */
function checkedFrom({ start, end }, checks, { outcome, against, carried_good }) {
  const confirming = checks.filter(({ node, attestation }) => attestation && !against.has(hex(node)))
  if (outcome !== 'accepted' || !carried_good || confirming.length === 0) return start
  return end - Math.min(...confirming.map(({ order }) => order.fields.planned_tokens))
}

/** Whether a checker was asked about this window and, as far as both are opened, given the very tokens of it. */
function isAbout({ order, opened }, part, receipt) {
  const { entry, checks, parameters, planned_tokens, input_tokens } = order.fields
  if (entry !== 'score' || checks === undefined || !equal(checks, receipt.id)) return false
  const end = part.order.fields.input_tokens + receipt.fields.first_token + receipt.fields.tokens
  if (planned_tokens < receipt.fields.tokens || input_tokens + planned_tokens !== end) return false
  const sampling = ({ max_tokens, ...rest }) => rest
  if (!isDeepStrictEqual(sampling(parameters), sampling(part.order.fields.parameters))) return false
  if (!opened || !part.opened) return true
  const tokens = [...part.opened.work.sequences[0], ...part.opened.pieces.flatMap((piece) => piece.tokens)]
  return isDeepStrictEqual(opened.work.sequences[0], tokens.slice(0, end))
}

const onExecutor = ({ outcome }) => ({ accepted: UPHELD, rejected: REFUTED, inconclusive: UNDECIDED })[outcome]

function onChecker({ part, outcome, against }, check, { parties }) {
  if (check.attestation === undefined) return SILENT
  const toTheJob = new Set([...parties, ...keysOf(part)])
  if (outcome === 'inconclusive' || isParty(check, toTheJob)) return UNDECIDED
  return against.has(hex(check.node)) ? REFUTED : UPHELD
}

/** The model or the order ended the text here, or the client had enough of what came. */
const endsText = ({ receipt: { fields } }) =>
  fields.end === 'final' || (fields.end === 'cancelled' && (fields.tokens > 0 || fields.previous !== undefined))

/** Whether every token from the text's beginning to this window's end is borne out. */
function leadsBack(last, windows, beginning) {
  let covered = last.end
  for (let window = last; window.outcome === 'accepted';) {
    const sequence = Number(window.receipt.fields.sequence)
    const order = window.part.order.fields
    if (sequence > 0) {
      window = windows.get(hex(window.part.receipts[sequence - 1].id))
      continue
    }
    if (window.receipt.fields.tokens > 0) covered = window.drawn ? window.checkedFrom : beginning
    const before = order.continues && windows.get(hex(order.continues.receipt))
    if (!before) return covered <= beginning
    const younger = BigInt(before.part.order.fields.created_ms) > BigInt(order.created_ms)
    if (younger || covered > before.end || before.end > window.start) return false
    window = before
  }
  return false
}
