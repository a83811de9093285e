/**
 * A reader of CDDL (RFC 8610), as much of it as fallow.cddl uses: maps, lists, choices, ranges, sizes, patterns, tags.
 *
 * A type is one of:
 *   {kind: 'name', name}   {kind: 'literal', value}   {kind: 'range', least, most}   {kind: 'choice', options}
 *   {kind: 'size', of, least, most}   {kind: 'regexp', of, pattern}   {kind: 'cbor', of, inner}   {kind: 'tag', number, of}
 *   {kind: 'map' | 'list' | 'group', members: [{least, most, key, of}]}
 * where a member's key is null, a literal's text or number, or a type that the keys of a map have to match. All numbers
 * are BigInt; `most` is null where nothing bounds it.
 */
const TOKEN =
  /\s+|;[^\n]*|(?<text>"[^"]*")|(?<tag>#6\.\d+)|(?<number>-?\d+)|(?<name>[A-Za-z_$@](?:[\w$@-]*\w)?)|(?<control>\.[a-z]+)|(?<sign>\.\.|=>|\/\/|[=/{}[\](),?*+:])/y

/** Every rule of the file, by its name. @param {string} source @returns {Map<string, any>} */
export function parse(source) {
  const reader = new Reader(tokens(source))
  const rules = new Map()
  while (!reader.done) {
    const name = reader.take('name')
    reader.takeSign('=')
    if (rules.has(name)) throw new Error(`the rule ${name} is defined twice`)
    rules.set(name, reader.type())
  }
  return rules
}

/** @param {string} source */
function tokens(source) {
  const found = []
  for (TOKEN.lastIndex = 0; TOKEN.lastIndex < source.length;) {
    const start = TOKEN.lastIndex
    const match = TOKEN.exec(source)
    if (match === null) throw new Error(`not in the subset of CDDL: ${source.slice(start, start + 40)}`)
    const [kind, word] = Object.entries(match.groups).find(([, text]) => text !== undefined) ?? []
    if (kind !== undefined) found.push({ kind, word })
  }
  return found
}

class Reader {
  #tokens
  #next = 0

  /** @param {{kind: string, word: string}[]} tokens */
  constructor(tokens) {
    this.#tokens = tokens
  }

  get done() {
    return this.#next === this.#tokens.length
  }

  /** The word of the next token, which has to be of this kind. @param {string} kind */
  take(kind) {
    const token = this.#tokens[this.#next++]
    if (token?.kind !== kind) throw new Error(`expected a ${kind}, found ${token?.word ?? 'the end'}`)
    return token.word
  }

  /** @param {string} sign */
  takeSign(sign) {
    const found = this.take('sign')
    if (found !== sign) throw new Error(`expected ${sign}, found ${found}`)
  }

  /**
   * Whether this token comes next, or `ahead` after that.
   * @param {string} kind
   * @param {string} [word]
   * @param {number} [ahead]
   */
  #sees(kind, word, ahead = 0) {
    const token = this.#tokens[this.#next + ahead]
    return token?.kind === kind && (word === undefined || token.word === word)
  }

  /** @param {string} sign */
  #skips(sign) {
    const there = this.#sees('sign', sign)
    if (there) this.#next++
    return there
  }

  /** One type, with all its alternatives. */
  type() {
    const options = [this.#bounded()]
    while (this.#skips('/')) options.push(this.#bounded())
    return options.length === 1 ? options[0] : { kind: 'choice', options }
  }

  /** A type with its range or its controls. */
  #bounded() {
    let of = this.#plain()
    if (this.#skips('..')) of = { kind: 'range', least: of.value, most: this.#plain().value }
    while (this.#sees('control')) {
      const control = this.take('control')
      const bound = this.#plain()
      if (control === '.size') of = { kind: 'size', of, ...span(bound) }
      else if (control === '.regexp') of = { kind: 'regexp', of, pattern: bound.value }
      else if (control === '.cbor') of = { kind: 'cbor', of, inner: bound }
      else throw new Error(`the control ${control} is not in the subset`)
    }
    return of
  }

  #plain() {
    if (this.#sees('text')) return { kind: 'literal', value: this.take('text').slice(1, -1) }
    if (this.#sees('number')) return { kind: 'literal', value: BigInt(this.take('number')) }
    if (this.#sees('name')) return { kind: 'name', name: this.take('name') }
    if (this.#sees('tag')) return this.#tagged()
    if (this.#skips('{')) return { kind: 'map', members: this.#members('}') }
    if (this.#skips('[')) return { kind: 'list', members: this.#members(']') }
    this.takeSign('(')
    const members = this.#members(')')
    const [only] = members
    const isType = members.length === 1 && only.key === null && only.least === 1n && only.most === 1n
    return isType ? only.of : { kind: 'group', members }
  }

  #tagged() {
    const number = BigInt(this.take('tag').slice(3))
    this.takeSign('(')
    const of = this.type()
    this.takeSign(')')
    return { kind: 'tag', number, of }
  }

  /** @param {string} end */
  #members(end) {
    const members = []
    while (!this.#skips(end)) {
      members.push(this.#member())
      this.#skips(',')
    }
    return members
  }

  #member() {
    const [least, most] = this.#occurrence()
    if (this.#sees('sign', ':', 1)) {
      const key = this.#sees('name') ? this.take('name') : this.#plain().value
      this.takeSign(':')
      return { least, most, key, of: this.type() }
    }
    const type = this.type()
    return this.#skips('=>') ? { least, most, key: type, of: this.type() } : { least, most, key: null, of: type }
  }

  /** How often a member occurs: `?`, `+`, `*`, `a*`, `*b`, `a*b`, or once. */
  #occurrence() {
    if (this.#skips('?')) return [0n, 1n]
    if (this.#skips('+')) return [1n, null]
    const counted = this.#sees('number') && this.#sees('sign', '*', 1)
    if (!counted && !this.#sees('sign', '*')) return [1n, 1n]
    const least = counted ? BigInt(this.take('number')) : 0n
    this.takeSign('*')
    return [least, this.#sees('number') ? BigInt(this.take('number')) : null]
  }
}

/** @param {any} bound */
const span = (bound) =>
  bound.kind === 'range' ? { least: bound.least, most: bound.most } : { least: bound.value, most: bound.value }
