/**
 * A payment channel as one of its two sides sees it. Clocks differ by up to the skew, so each side counts against itself:
 * what it may still do ends on time, what the other may still do ends later. Money and times are BigInt.
 */
import { equal, hex } from './bytes.js'
import { GROUNDS_MAX, HELD_MAX, HOLD_MS_MAX, SKEW_MS } from './limits.js'
import { demand } from './refusal.js'
import { follows, heldAfter, sums } from './vouchers.js'

const SKEW = BigInt(SKEW_MS)
const PPM = 1_000_000n

/** phase -> "party event" -> next phase; all else is illegal. */
const TABLE = {
  open: {
    'payer voucher': 'open',
    'payer forfeit': 'open',
    'payer close': 'closing',
    'payee close': 'closing',
    'clock expire': 'closing',
  },
  closing: {
    'payer contest': 'closing',
    'payee contest': 'closing',
    'payer forfeit': 'closing',
    'payer close': 'closing',
    'payee close': 'closing',
    'clock expire': 'closed',
  },
  closed: {},
}

/** @typedef {{owed: bigint, holdable: bigint, until: bigint}} Claim */

/** What a receipt adds to the debt, and what of it the order lets the payer hold, rounded down. @returns {Claim} */
export function claimOf({ owed_ucr, held_ppm, hold_ms, receipt_ms }) {
  const owed = BigInt(owed_ucr)
  return { owed, holdable: (owed * BigInt(held_ppm)) / PPM, until: BigInt(receipt_ms) + BigInt(hold_ms) }
}

export class ChannelState {
  phase = 'open'
  /** The fields of the latest voucher. @type {any} */
  latest = null
  /** Claims of the receipts that vouchers name. @type {Map<string, Claim>} */
  #named = new Map()
  /** What each ground forfeits. @type {Map<string, bigint>} */
  #grounds = new Map()
  #closing = 0n

  /** @param {string} party @param {import('./envelope.js').Signed} channel */
  constructor(party, channel) {
    this.party = party
    this.channel = channel
  }

  get promised() {
    return this.latest ? sums(this.latest).promised : 0n
  }

  /** By the latest voucher, or by grounds that it does not know. */
  get forfeited() {
    if (!this.latest) return 0n
    const { forfeited, held } = sums(this.latest)
    return min(max(forfeited, total(this.#grounds.values())), forfeited + held)
  }

  /** What the payee has earned if nothing more is promised or forfeited. */
  get balance() {
    return this.promised - this.forfeited
  }

  /** Of the balance, what has not fallen due. @param {bigint} now */
  held(now) {
    return heldAfter(this.#parts(now))
  }

  /** That, in parts. What would fall due last is forfeited first. @param {bigint} now */
  #parts(now) {
    if (!this.latest) return []
    const { parts, forfeited } = sums(this.latest)
    const at = now - (this.party === 'payee' ? SKEW : 0n)
    let taken = this.forfeited - forfeited
    const left = parts.reverse().map(({ ucr, release }) => {
      const lost = min(ucr, taken)
      taken -= lost
      return { ucr: ucr - lost, release }
    })
    return left.reverse().filter(({ ucr, release }) => ucr > 0n && release > at)
  }

  /** Of the balance, what has fallen due. @param {bigint} now */
  payable(now) {
    return this.balance - this.held(now)
  }

  /** When the clock makes its next move; null once closed. */
  get deadline() {
    if (this.phase === 'closed') return null
    if (this.phase === 'open') return BigInt(this.channel.fields.expires_ms)
    const last = this.latest ? sums(this.latest).parts.at(-1)?.release : undefined
    return max(this.#graceEnds, last ?? 0n) + SKEW
  }

  /**
   * The payer answers a receipt: the fields of the voucher to sign.
   * @param {Uint8Array} receipt
   * @param {Claim} claim
   * @param {bigint} now
   */
  pay(receipt, claim, now) {
    this.#mayPay(now)
    demand(!this.#named.has(hex(receipt)), 'illegal_move', 'this receipt has its voucher already')
    const room = BigInt(this.channel.fields.credit_limit_ucr) - this.balance
    demand(0n <= claim.owed && claim.owed <= room, 'credit_exhausted', "beyond the channel's limit")
    const parts = this.#parts(now)
    const release = releaseOf(parts, claim.until, now)
    if (release > now) {
      const most = this.#holdable(release) + claim.holdable - this.forfeited - heldAfter(parts, release - 1n)
      hold(parts, max(0n, min(claim.holdable, most)), release)
    }
    this.latest = this.#voucher(receipt, this.balance + claim.owed, parts, this.forfeited)
    this.#named.set(hex(receipt), claim)
    return this.latest
  }

  /**
   * The payer says again what it promised, with forfeits taken off and what was released as due.
   * @param {bigint} now
   */
  restate(now) {
    this.#mayPay(now)
    demand(this.latest !== null, 'illegal_move', 'nothing was promised yet')
    this.latest = this.#voucher(this.latest.receipt, this.balance, this.#parts(now), this.forfeited)
    return this.latest
  }

  /**
   * The payer gives up what a ground was to forfeit beyond `ucr`: the payee was told too late.
   * @param {{kind: string, id: Uint8Array}} ground
   * @param {bigint} ucr
   * @param {bigint} now
   */
  giveUp({ kind, id }, ucr, now) {
    this.#mayPay(now)
    const name = `${kind} ${hex(id)}`
    const taken = this.#grounds.get(name) ?? 0n
    demand(this.latest !== null && 0n <= ucr && ucr <= taken, 'illegal_move', 'the ground does not forfeit so much')
    const more = taken - ucr
    this.latest = this.#voucher(this.latest.receipt, this.balance + more, this.#parts(now), this.forfeited - more)
    this.#grounds.set(name, ucr)
    return this.latest
  }

  /**
   * The payee takes a voucher.
   * @param {import('./envelope.js').Signed} voucher
   * @param {Claim} claim
   * @param {bigint} now
   */
  receive({ fields, signer }, claim, now) {
    this.#demandOwn(fields, signer)
    this.#contest('payer', now)
    const { due, held, forfeited, parts } = sums(fields)
    const release = parts.at(-1)?.release ?? 0n
    demand(due + held <= BigInt(this.channel.fields.credit_limit_ucr), 'credit_exhausted', "beyond the channel's limit")
    demand(release <= now + BigInt(HOLD_MS_MAX) + SKEW, 'bad_record', 'held for longer than any order may')
    demand(forfeited <= total(this.#grounds.values()), 'unpaid', 'it forfeits more than any ground that is known')
    const best = sums(this.#later(fields))
    const claims = new Map([[hex(fields.receipt), claim], ...this.#named])
    const owed = total([...claims.values()].map((one) => one.owed))
    demand(best.promised >= owed, 'unpaid', 'it does not cover the receipt that it names')
    for (const { release: until } of best.parts) {
      const due = best.due + best.held - heldAfter(best.parts, until - 1n)
      const covered = due + max(best.forfeited, holdableUntil(claims, until - SKEW))
      demand(covered >= owed, 'unpaid', 'it holds back more than was agreed to')
    }
    this.#take(fields, claim)
  }

  /**
   * The payer is shown a voucher of its own, while closing.
   * @param {import('./envelope.js').Signed} voucher
   * @param {bigint} now
   */
  present({ fields, signer }, now) {
    this.#demandOwn(fields, signer)
    this.#contest('payee', now)
    this.#later(fields)
    this.#take(fields, { owed: 0n, holdable: 0n, until: 0n })
  }

  /**
   * So much of what is held is not owed any more.
   * @param {{kind: string, id: Uint8Array}} ground
   * @param {bigint} ucr
   * @param {bigint} now
   */
  forfeit({ kind, id }, ucr, now) {
    const name = `${kind} ${hex(id)}`
    if (this.#grounds.get(name) === ucr) return
    this.expire(now)
    this.#move('payer', 'forfeit')
    demand(!this.#grounds.has(name), 'illegal_move', 'the same ground was given for another amount')
    demand(this.#grounds.size < GROUNDS_MAX, 'too_large', 'as many forfeits as a channel may have')
    demand(0n < ucr && ucr <= this.held(now), 'expired', 'not held, or fallen due')
    this.#grounds.set(name, ucr)
  }

  /** The closing begins, if it has not. @param {string} by @param {bigint} now */
  close(by, now) {
    this.expire(now)
    if (this.phase === 'open') this.#closing = now
    this.#move(by, 'close')
  }

  /** The clock makes all its moves up to now. @param {bigint} now */
  expire(now) {
    for (let deadline = this.deadline; deadline !== null && now >= deadline; deadline = this.deadline) {
      if (this.phase === 'open') this.#closing = deadline
      this.#move('clock', 'expire')
    }
  }

  get #graceEnds() {
    return this.#closing + BigInt(this.channel.fields.close_grace_ms)
  }

  /** What all known orders let the payer hold until then. @param {bigint} until */
  #holdable(until) {
    return holdableUntil(this.#named, until)
  }

  /** @param {bigint} now */
  #mayPay(now) {
    demand(this.party === 'payer', 'illegal_move', 'only the payer signs vouchers')
    this.#contest('payer', now)
  }

  /** @param {string} by @param {bigint} now */
  #contest(by, now) {
    this.expire(now)
    const late = by === this.party ? 0n : SKEW
    demand(this.phase === 'open' || now < this.#graceEnds + late, 'expired', "the channel's grace is over")
    this.#move(by, this.phase === 'open' ? 'voucher' : 'contest')
  }

  /** @param {string} by @param {string} event */
  #move(by, event) {
    const next = TABLE[this.phase][`${by} ${event}`]
    demand(next !== undefined, 'illegal_move', `no ${event} by the ${by} while ${this.phase}`)
    this.phase = next
  }

  #demandOwn(fields, signer) {
    const own = equal(fields.channel, this.channel.id) && equal(signer, this.channel.fields.payer)
    demand(own, 'bad_signature', 'for another channel, or by another payer')
  }

  /** Of this voucher and the latest, the one that follows the other. */
  #later(fields) {
    if (this.latest === null || follows(fields, this.latest)) return fields
    demand(follows(this.latest, fields), 'contradiction', 'it contradicts another voucher of its payer')
    return this.latest
  }

  /** @param {any} fields @param {Claim} claim */
  #take(fields, claim) {
    if (!this.#named.has(hex(fields.receipt))) this.#named.set(hex(fields.receipt), claim)
    if (this.latest === null || !follows(this.latest, fields)) this.latest = fields
  }

  #voucher(receipt, balance, parts, forfeited) {
    return {
      channel: this.channel.id,
      receipt,
      due_ucr: balance - heldAfter(parts),
      held: parts.map(({ ucr, release }) => ({ ucr, release_at_ms: release })),
      forfeited_ucr: forfeited,
    }
  }
}

/**
 * When more falls due that may be held until a time: with the latest part before it, unless that cuts its time by a seventh and
 * there is room for one part more.
 * @param {import('./vouchers.js').Part[]} parts
 * @param {bigint} until
 * @param {bigint} now
 */
function releaseOf(parts, until, now) {
  const latest = parts.findLast(({ release }) => release <= until)?.release ?? 0n
  const near = (until - latest) * BigInt(HELD_MAX - 1) < until - now
  return near || parts.length >= HELD_MAX ? latest : until
}

/** So much more is held until then. @param {import('./vouchers.js').Part[]} parts @param {bigint} ucr @param {bigint} release */
function hold(parts, ucr, release) {
  const same = parts.find((part) => part.release === release)
  if (same) same.ucr += ucr
  else if (ucr > 0n) parts.splice(parts.filter((part) => part.release < release).length, 0, { ucr, release })
}

/** @param {Map<string, Claim>} claims @param {bigint} until */
const holdableUntil = (claims, until) =>
  total([...claims.values()].map((one) => (one.until >= until ? one.holdable : 0n)))

/** @param {Iterable<bigint>} amounts */
const total = (amounts) => [...amounts].reduce((sum, amount) => sum + amount, 0n)
const max = (a, b) => (a > b ? a : b)
const min = (a, b) => (a < b ? a : b)
