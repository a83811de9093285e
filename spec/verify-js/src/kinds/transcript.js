import { transcriptNext, transcriptStart } from '../transcript.js'

/** The rolling hash, piece by piece. */
export function run({ salt, order, pieces }) {
  const start = transcriptStart(salt, order)
  let last = start
  return { start, after: pieces.map((piece) => (last = transcriptNext(last, piece))) }
}
