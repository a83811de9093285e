/** A stream's bytes as frames: each a length of four bytes, big-endian, and so many bytes. */
import { concat } from './bytes.js'
import { MESSAGE_BYTES_MAX } from './limits.js'
import { demand } from './refusal.js'

const HEAD_BYTES = 4

export class Frames {
  #unread = new Uint8Array()

  /**
   * The frames that are complete with these bytes; a length beyond the bound is refused before its bytes come.
   * @param {Uint8Array} bytes
   */
  feed(bytes) {
    this.#unread = concat(this.#unread, bytes)
    const frames = []
    while (this.#unread.length >= HEAD_BYTES) {
      const end = HEAD_BYTES + new DataView(this.#unread.buffer).getUint32(0)
      demand(end - HEAD_BYTES <= MESSAGE_BYTES_MAX, 'too_large', 'a frame beyond the bound was announced')
      if (this.#unread.length < end) break
      frames.push(this.#unread.slice(HEAD_BYTES, end))
      this.#unread = this.#unread.slice(end)
    }
    return frames
  }
}
