/** What was asked and answered under one order, shown to others: only the true plaintext fits the digests that were signed. */
import { equal } from './bytes.js'
import { decode } from './cbor.js'
import { MESSAGE_BYTES_MAX } from './limits.js'
import { demand } from './refusal.js'
import { fit } from './schema.js'
import { saltedDigest, transcriptNext, transcriptStart } from './transcript.js'

/** @param {Uint8Array} encoded */
export const readOpening = (encoded) => fit('opening', decode(encoded, 2 * MESSAGE_BYTES_MAX))

/** What was asked, whatever came of it. @param {any} opening @param {import('./envelope.js').Signed} order */
export function askedOf({ order: named, salt, work }, order) {
  const fits = equal(named, order.id) && equal(saltedDigest(salt, work), order.fields.input_digest)
  demand(fits, 'input_mismatch', "not of this order's input")
  return fit('work', decode(work, MESSAGE_BYTES_MAX))
}

/**
 * The work, and the pieces as far as receipts vouch for them.
 * @param {any} opening
 * @param {import('./envelope.js').Signed} order
 * @param {import('./envelope.js').Signed[]} receipts
 */
export function open({ order: named, salt, work, pieces }, order, receipts) {
  const asked = askedOf({ order: named, salt, work }, order)
  const wanted = receipts.map(({ fields }) => fields.transcript).filter((transcript) => !equal(transcript, order.id))
  const read = []
  let [transcript, vouched] = [transcriptStart(salt, order.id), 0]
  for (const piece of pieces) {
    read.push(fit('piece', decode(piece, MESSAGE_BYTES_MAX)))
    transcript = transcriptNext(transcript, piece)
    for (; wanted.length > 0 && equal(wanted[0], transcript); wanted.shift()) vouched = read.length
  }
  demand(wanted.length === 0, 'input_mismatch', 'not the pieces that a receipt vouches for')
  return { work: asked, pieces: read.slice(0, vouched) }
}
