/** Keys and content hashes as people write them, the time windows of records, and the mandate that ties a node to its owner. */
import { concat, equal, startsWith, unhex } from './bytes.js'
import { verify } from './envelope.js'
import { HOLD_MS_MAX, ISSUER_BYTES_MAX, SKEW_MS } from './limits.js'
import { demand, unlessRefused } from './refusal.js'
import { base32, base58, unbase32, unbase58 } from './text-forms.js'

/** Identity multihash of libp2p's protobuf for an Ed25519 public key. */
const PEER_ID = unhex('002408011220')
/** CIDv1, raw bytes, BLAKE3, 32 bytes. */
const CID = unhex('01551e20')
/** Multicodec of an Ed25519 public key. */
const DID_KEY = unhex('ed01')

/** @param {Uint8Array} key */
export const peerId = (key) => base58(concat(PEER_ID, key))

/** @param {Uint8Array} key */
export const didKey = (key) => `did:key:z${base58(concat(DID_KEY, key))}`

/** @param {Uint8Array} hash */
export const cid = (hash) => `b${base32(concat(CID, hash))}`

/** The key in a peer id. @param {string} text */
export function peerKey(text) {
  return bodyOf(text.length <= 64 ? unbase58(text) : null, PEER_ID, 'a peer id of an Ed25519 key')
}

/** The hash in a CID. @param {string} text */
export function cidHash(text) {
  return bodyOf(text.startsWith('b') && text.length <= 64 ? unbase32(text.slice(1)) : null, CID, 'a CID of BLAKE3')
}

/** @param {Uint8Array | null} bytes @param {Uint8Array} prefix @param {string} what */
function bodyOf(bytes, prefix, what) {
  const sound = bytes !== null && bytes.length === prefix.length + 32 && startsWith(bytes, prefix)
  demand(sound, 'bad_encoding', `not ${what}`)
  return /** @type {Uint8Array} */ (bytes).subarray(prefix.length)
}

/** Returns if `now_ms` lies between both times, give or take the clocks' skew. */
export function checkCurrent(not_before_ms, expires_ms, now_ms) {
  const [from, now, to] = [not_before_ms, now_ms, expires_ms].map(BigInt)
  demand(from - BigInt(SKEW_MS) <= now && now <= to + BigInt(SKEW_MS), 'expired', 'not valid at this time')
}

/**
 * Returns if the mandate lets `node` act in `role` now, by its owner or by an issuer of the owner's.
 * @param {import('./envelope.js').Signed} mandate
 */
export function checkMandate(mandate, node, role, now_ms) {
  const { fields } = mandate
  demand(equal(fields.node, node) && fields.roles.includes(role), 'bad_mandate', `not this node's, or not as a ${role}`)
  checkIssued(mandate, now_ms)
  checkCurrent(fields.not_before_ms, fields.expires_ms, now_ms)
}

/** Returns if the mandate was signed by its owner, or by an issuer whom the owner entitled to it at `at_ms`. */
export function checkIssued(mandate, at_ms) {
  const issuer = issuerOf(mandate)
  if (issuer !== null) checkCurrent(issuer.not_before_ms, issuer.expires_ms, at_ms)
}

/** The fields of the issuer that signed the mandate; null if its owner did. Refuses one that neither signed. */
function issuerOf({ fields, signer }) {
  if (fields.issuer === undefined) {
    demand(equal(signer, fields.owner), 'bad_mandate', 'the mandate is not signed by the owner that it names')
    return null
  }
  const issuer = verify('issuer', fields.issuer, fields.owner, ISSUER_BYTES_MAX).fields
  const entitled = equal(issuer.owner, fields.owner) && equal(issuer.issuer, signer)
  demand(entitled, 'bad_mandate', "the mandate's issuer is not one of the owner that it names")
  return issuer
}

/**
 * Whether the mandate made `node` a verifier at some time since the order was made, and lapsed no longer ago than anything may
 * be held.
 * @param {import('./envelope.js').Signed} mandate
 */
export function couldJudge(mandate, node, created_ms, now_ms) {
  const [created, now, skew, hold] = [created_ms, now_ms, SKEW_MS, HOLD_MS_MAX].map(BigInt)
  const { fields } = mandate
  const at = unlessRefused(() => {
    const ends = [fields.expires_ms, issuerOf(mandate)?.expires_ms ?? fields.expires_ms].map((ms) => BigInt(ms) + skew)
    const earliest = [now, ...ends].reduce((one, other) => (other < one ? other : one))
    checkMandate(mandate, node, 'verifier', earliest)
    return earliest
  })
  return at !== null && at >= created - skew && at >= now - hold
}

/** Returns unless one of a higher epoch has been seen. */
export function checkEpoch(fields, seen_epoch) {
  demand(BigInt(fields.epoch) >= BigInt(seen_epoch), 'bad_mandate', 'replaced by one of a higher epoch')
}
