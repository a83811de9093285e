import { Frames } from '../framing.js'

/** Reads a stream's frames from the pieces in which its bytes came. */
export function run({ reads }) {
  const stream = new Frames()
  return { frames: reads.flatMap((bytes) => stream.feed(bytes)) }
}
