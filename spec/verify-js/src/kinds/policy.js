import { parsePolicy } from '../policies.js'

/** Reads the text of a policy. */
export const run = ({ text }) => parsePolicy(text)
