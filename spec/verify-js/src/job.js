/** The sequence of one job: one table for both sides, and the time that each wait may take. */
import { ACCEPT_MS_MAX, JOB_MS_MAX, SILENCE_MS_MAX, VOUCHER_MS_MAX, YIELD_MS_MAX } from './limits.js'
import { Refusal } from './refusal.js'

/** state -> "sender event" -> next state. Heartbeats are legal in every state that is not an end; all else is illegal. */
const TABLE = {
  idle: { 'client order': 'ordered' },
  ordered: { 'executor accept': 'running', 'executor refuse': 'refused', 'client cancel': 'withdrawn' },
  withdrawn: { 'executor accept': 'stopping', 'executor refuse': 'refused' },
  running: {
    'executor chunk': 'running',
    'executor receipt': 'running',
    'executor attestation': 'running',
    'client voucher': 'running',
    'executor final': 'closing',
    'executor yield': 'yielding',
    'executor failed': 'broken',
    'client cancel': 'stopping',
  },
  stopping: {
    'executor chunk': 'stopping',
    'executor receipt': 'stopping',
    'executor attestation': 'stopping',
    'client voucher': 'stopping',
    'executor yield': 'stopping',
    'executor final': 'closing',
    'executor failed': 'broken',
  },
  yielding: {
    'client voucher': 'yielding',
    'client cancel': 'yielding',
    'executor receipt': 'yielding',
    'executor final': 'closing',
    'executor failed': 'broken',
  },
  closing: {
    'client voucher': 'closing',
    'client settle': 'settled',
    'client decline': 'unsettled',
    'client cancel': 'closing',
  },
}
const UNANSWERED = ['idle', 'ordered', 'withdrawn']
const ENDS = ['settled', 'unsettled', 'refused', 'broken']
/** Beside a cancel that changes the state. */
const PROGRESS = ['accept', 'chunk', 'voucher', 'yield', 'final']
/** Receipts without voucher beyond which nothing may follow but the final one. */
const UNPAID_MAX = 1

/** One side's view of one job. */
export class Job {
  state = 'idle'
  unpaid = 0
  #began
  #heard
  #progress
  #delivering = false

  /** @param {{role: string, first_chunk_ms_max: number, gap_ms_max: number, now_ms: number}} terms */
  constructor(terms) {
    this.terms = terms
    this.#began = this.#heard = this.#progress = terms.now_ms
  }

  /**
   * What `sender` says; the job is broken if the other side may not say it. What comes after the end changes nothing.
   * @param {number} now
   * @param {string} sender
   * @param {string} event
   */
  move(now, sender, event) {
    const theirs = sender !== this.terms.role
    if (theirs && ENDS.includes(this.state)) return
    if (theirs) this.#heard = now
    const problem = this.#problem(sender, event)
    if (problem) {
      if (theirs) this.state = 'broken'
      throw new Refusal('illegal_move', problem)
    }
    if (event !== 'heartbeat') this.#take(now, sender, event)
  }

  #problem(sender, event) {
    if (event === 'heartbeat') return ENDS.includes(this.state) ? 'a heartbeat after the end' : null
    if (TABLE[this.state]?.[`${sender} ${event}`] === undefined)
      return `no ${event} by the ${sender} while ${this.state}`
    if (['chunk', 'receipt'].includes(event) && this.unpaid > UNPAID_MAX) return `a ${event} beyond what may be unpaid`
    if (['voucher', 'settle'].includes(event) && this.unpaid === 0) return 'a voucher without a receipt'
    if (event === 'settle' && this.unpaid > 1) return 'the last voucher before the one before it'
    return null
  }

  #take(now, sender, event) {
    if (['receipt', 'final'].includes(event)) this.unpaid += 1
    if (['voucher', 'settle'].includes(event)) this.unpaid -= 1
    if (event === 'chunk') this.#delivering = true
    const next = TABLE[this.state][`${sender} ${event}`]
    if (PROGRESS.includes(event) || (event === 'cancel' && next !== this.state)) this.#progress = now
    this.state = next
  }

  /** When the job breaks, unless something happens before. */
  get deadline() {
    const { role, first_chunk_ms_max, gap_ms_max } = this.terms
    const unanswered = UNANSWERED.includes(this.state)
    const answer = unanswered ? this.#began + ACCEPT_MS_MAX : this.#heard + SILENCE_MS_MAX
    const bounds = [this.#began + JOB_MS_MAX, answer]
    const blocked = this.unpaid > UNPAID_MAX
    if (role === 'executor') {
      if (this.state === 'closing' || (this.state === 'running' && blocked))
        bounds.push(this.#progress + VOUCHER_MS_MAX)
    } else if (this.state === 'running' && !blocked) {
      bounds.push(this.#progress + (this.#delivering ? gap_ms_max : first_chunk_ms_max))
    } else if (['stopping', 'yielding'].includes(this.state)) {
      bounds.push(this.#progress + YIELD_MS_MAX)
    }
    return Math.min(...bounds)
  }

  /** Breaks the job if a bound has passed. @param {number} now */
  expire(now) {
    if (ENDS.includes(this.state) || now < this.deadline) return
    this.state = 'broken'
    throw new Refusal('timed_out', 'a bound has passed')
  }
}
