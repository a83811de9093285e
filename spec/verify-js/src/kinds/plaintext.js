import { decode } from '../cbor.js'
import { MESSAGE_BYTES_MAX } from '../limits.js'
import { fit } from '../schema.js'

/** Reads what was sealed. */
export const run = ({ struct, encoded }) => ({ fields: fit(struct.toLowerCase(), decode(encoded, MESSAGE_BYTES_MAX)) })
