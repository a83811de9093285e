/** What a reader says no with: a stable code of the specification's registry, and a sentence for people. */
export class Refusal extends Error {
  /**
   * @param {string} code
   * @param {string} why
   */
  constructor(code, why) {
    super(`${why} [${code}]`)
    this.code = code
  }
}

/**
 * Throws unless `holds`.
 * @param {boolean} holds
 * @param {string} code
 * @param {string} why
 */
export function demand(holds, code, why) {
  if (!holds) throw new Refusal(code, why)
}

/**
 * What `play` gives; a refusal tells at which step of a sequence it came.
 * @template T
 * @param {number} at
 * @param {() => T} play
 */
export function atStep(at, play) {
  try {
    return play()
  } catch (error) {
    if (error instanceof Refusal) error.at = at
    throw error
  }
}

/**
 * What `read` gives; null if it refuses.
 * @template T
 * @param {() => T} read
 */
export function unlessRefused(read) {
  try {
    return read()
  } catch (error) {
    if (error instanceof Refusal) return null
    throw error
  }
}
