import { readMessage } from '../messages.js'

/** Reads one frame. */
export const run = ({ frame }) => readMessage(frame)
