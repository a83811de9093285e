import { decode } from '../cbor.js'
import { sign } from '../envelope.js'
import { RECORD_BYTES_MAX } from '../limits.js'
import { fit } from '../schema.js'

/** Signs a record, or reads one's payload. */
export function run({ seed, record, fields, payload }) {
  if (payload !== undefined) return { fields: fit(record, decode(payload, RECORD_BYTES_MAX)) }
  const { record: _, fields: __, signer: ___, ...parts } = sign(record, fields, seed)
  return parts
}
