/** Numerics classes: on what, and by which of a bundle's programs, a result was computed. */

/**
 * The class with those of its variants alone that ran, in its order; the whole where none of them did.
 * @param {string} whole
 * @param {string[]} ran
 */
export function narrowed(whole, ran) {
  const cut = whole.lastIndexOf('/') + 1
  const kept = whole.slice(cut).split('+').filter((variant) => ran.includes(variant))
  return kept.length ? whole.slice(0, cut) + kept.join('+') : whole
}

/** Whether a result of class `part` can come from a node of class `whole`. @param {string} part @param {string} whole */
export function isWithin(part, whole) {
  return part === narrowed(whole, part.slice(part.lastIndexOf('/') + 1).split('+'))
}
