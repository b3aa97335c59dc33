// What the arguments of a Dockerfile instruction say: words, quotes, escapes and the substitution of variables, as
// Docker's own shell lexer has them (moby buildkit, frontend/dockerfile/shell). This file knows no instruction.

export interface Syntax {
  /** `\` unless the file's `# escape=` directive says a backtick. */
  readonly escape: string
  /** Throws a typed error for the instruction being read. */
  readonly refuse: (problem: string) => never
}

/** Splits at blanks outside quotes; quotes and escapes stay, for `expand` to take away. */
export function splitWords(text: string, syntax: Syntax): string[] {
  const words: string[] = []
  let word = ''
  for (const { raw, kind } of tokens(text, syntax)) {
    if (kind !== 'blank') {
      word += raw
    } else if (word !== '') {
      words.push(word)
      word = ''
    }
  }
  return word === '' ? words : [...words, word]
}

/** Takes quotes and escapes away and puts in variables. What is in single quotes stays as it is. */
export function expand(text: string, env: Readonly<Record<string, string>>, syntax: Syntax): string {
  let result = ''
  for (const token of tokens(text, syntax)) {
    if (token.kind === 'variable') result += readVariable(token.raw, env, syntax)
    else if (token.kind !== 'quote') result += token.value
  }
  return result
}

interface Token {
  readonly kind: 'text' | 'blank' | 'quote' | 'variable'
  /** As written. */
  readonly raw: string
  /** What it stands for, where that needs no variable. */
  readonly value: string
}

function* tokens(text: string, syntax: Syntax): Generator<Token> {
  let quote = ''
  for (let at = 0; at < text.length; ) {
    const token = nextToken(text.slice(at), quote, syntax)
    if (token.kind === 'quote') quote = quote === '' ? token.raw : ''
    yield token
    at += token.raw.length
  }
  if (quote !== '') syntax.refuse(`the quote ${quote} is never closed`)
}

/** `text` is not empty; `quote` is the one it is inside of, or empty. */
function nextToken(text: string, quote: string, syntax: Syntax): Token {
  const char = text[0] as string
  if (char === quote || (quote === '' && (char === '"' || char === "'"))) return { kind: 'quote', raw: char, value: '' }
  if (quote === "'") return { kind: 'text', raw: char, value: char }
  if (char === syntax.escape && text.length > 1) {
    const next = text[1] as string
    // Between double quotes only these lose their escape, as in a shell.
    const isKept = quote === '"' && !['"', '$', syntax.escape].includes(next)
    return { kind: 'text', raw: char + next, value: isKept ? char + next : next }
  }
  if (char === '$') return variableToken(text, syntax)
  const isBlank = quote === '' && (char === ' ' || char === '\t')
  return { kind: isBlank ? 'blank' : 'text', raw: char, value: char }
}

const NAME = /^\$(?:[A-Za-z_][A-Za-z0-9_]*|\{)/
const BRACED = /^\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+?])(.*))?\}$/s

/** `$name` or `${…}`, whole; a dollar before anything else is a dollar. */
function variableToken(text: string, syntax: Syntax): Token {
  const start = NAME.exec(text)?.[0]
  if (start === undefined) return { kind: 'text', raw: '$', value: '$' }
  const raw = start === '${' ? text.slice(0, closingBrace(text, syntax) + 1) : start
  return { kind: 'variable', raw, value: '' }
}

/** An unset variable is empty. `:-`, `:+` and `:?` count an empty one as unset. */
function readVariable(raw: string, env: Readonly<Record<string, string>>, syntax: Syntax): string {
  const match = BRACED.exec(raw)
  if (raw.startsWith('${') && !match) {
    syntax.refuse(`${raw} is not supported; \${name}, \${name:-default} and \${name:+other} are`)
  }
  const name = match?.[1] ?? raw.slice(1)
  const value = Object.hasOwn(env, name) ? env[name] : undefined
  const modifier = match?.[2] ?? ''
  if (modifier === '') return value ?? ''
  const word = () => expand(match?.[3] ?? '', env, syntax)
  const isSet = modifier.startsWith(':') ? Boolean(value) : value !== undefined
  if (modifier.endsWith('+')) return isSet ? word() : ''
  if (isSet) return value ?? ''
  return modifier.endsWith('?') ? syntax.refuse(`${name}: ${word() || 'is not set'}`) : word()
}

/** Index of the brace that closes the one `text` begins with. */
function closingBrace(text: string, syntax: Syntax): number {
  let depth = 0
  for (let at = 1; at < text.length; at++) {
    if (text[at] === syntax.escape) at++
    else if (text[at] === '{') depth++
    else if (text[at] === '}' && --depth === 0) return at
  }
  return syntax.refuse(`${JSON.stringify(text.slice(0, 40))} has no closing brace`)
}
