import { decode } from '../cbor.js'
import { MESSAGE_BYTES_MAX } from '../limits.js'

/** Reads one encoded value. */
export const run = ({ encoded }) => ({ value: decode(encoded, MESSAGE_BYTES_MAX) })
