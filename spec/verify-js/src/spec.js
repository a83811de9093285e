/** Where the specification lies that is checked: the folder above, or the one that FALLOW_SPEC names. */
import { pathToFileURL } from 'node:url'

export const SPEC = process.env.FALLOW_SPEC
  ? pathToFileURL(`${process.env.FALLOW_SPEC}/`)
  : new URL('../../', import.meta.url)
