import { verify } from '../envelope.js'

/** Verifies an envelope as a record of one kind, signed by one key. */
export function run({ record, signer, envelope }) {
  const { payload, sig_structure, signature, id, fields } = verify(record, envelope, signer)
  return { payload, sig_structure, signature, id, fields }
}
