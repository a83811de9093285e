import { drawCommittee } from '../policies.js'

/** Whom chance calls to a committee. */
export const run = (lot) => ({ drawn: drawCommittee(lot) })
