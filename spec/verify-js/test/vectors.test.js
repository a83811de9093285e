/** Every case of every file of vectors, held against this reader. */
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { after, test } from 'node:test'
import { fromNotation, toNotation } from '../src/notation.js'
import { Refusal } from '../src/refusal.js'
import { SPEC } from '../src/spec.js'

const FORMAT = 1
const HERE = new URL('vectors/', SPEC)
const KINDS = new URL('../src/kinds/', import.meta.url)

const names = (folder, end) =>
  readdirSync(folder)
    .filter((name) => name.endsWith(end))
    .sort()
const files = names(HERE, '.json').map((name) => ({ name: name.slice(0, -'.json'.length), ...JSON.parse(read(name)) }))

/** @param {string} name */
function read(name) {
  return readFileSync(new URL(name, HERE), 'utf8')
}

for (const { name, format, kind, cases } of files) {
  test(kind, async (t) => {
    assert.equal(format, FORMAT)
    assert.equal(name, kind)
    assert.notEqual(cases.length, 0)
    const { run } = await import(new URL(`${kind}.js`, KINDS).href)
    for (const { id, input, expect } of cases) {
      assert.ok(id.startsWith(`${kind}/`), id)
      await t.test(id, () => assert.deepEqual(verdict(run, fromNotation(input)), expect))
    }
    const refused = cases.filter(({ expect }) => 'code' in expect).length
    t.diagnostic(`${kind}: ${cases.length} cases, ${refused} of them refused`)
  })
}

test('every kind that is read has its vectors, each under a name of its own', () => {
  const kinds = names(KINDS, '.js').map((name) => name.slice(0, -'.js'.length))
  assert.deepEqual(
    files.map(({ kind }) => kind),
    kinds,
  )
  const ids = files.flatMap(({ cases }) => cases.map(({ id }) => id))
  assert.equal(new Set(ids).size, ids.length)
})

after(() => {
  const cases = files.flatMap((file) => file.cases)
  console.log(
    `${cases.length} vectors of ${files.length} kinds, ${cases.filter(({ expect }) => 'code' in expect).length} of them refused`,
  )
})

/** What this reader says of the input, as the vectors write it. @param {(input: any) => any} run @param {any} input */
function verdict(run, input) {
  try {
    return toNotation(run(input))
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    return toNotation({ code: error.code, at: error.at })
  }
}
