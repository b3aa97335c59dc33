// Which paths a pattern of Docker's means: Go's filepath.Match for COPY, and with `**`, `!` and comments for
// .dockerignore (moby patternmatcher). Paths are relative and use slashes.
import { PlatformError } from '../contract/errors.ts'

/** `*` and `?` stay within one component; `[a-z]` and `[^a-z]` are classes; a backslash escapes. */
export function hasWildcard(pattern: string): boolean {
  return /[*?[]/.test(pattern)
}

export function compilePattern(pattern: string): RegExp {
  try {
    return new RegExp(`^${toRegExp(pattern)}$`, 's')
  } catch (cause) {
    throw new PlatformError('INVALID_IMAGE', `${JSON.stringify(pattern)} is no valid pattern`, { cause })
  }
}

interface IgnoreRules {
  isIgnored(path: string): boolean
  /** Whether something below an ignored folder may still be wanted. */
  readonly hasExceptions: boolean
}

/** Rules in order, the last match decides; a rule that matches a folder matches all that is in it. */
export function parseIgnoreRules(source: string): IgnoreRules {
  const rules = source
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.trim())
    .filter((line) => line !== '' && line !== '!')
    .map((line) => {
      const isException = line.startsWith('!')
      return { isException, expression: compilePattern(normalRule(isException ? line.slice(1).trim() : line)) }
    })
  return {
    hasExceptions: rules.some((rule) => rule.isException),
    isIgnored(path) {
      const prefixes = path.split('/').map((_, index, parts) => parts.slice(0, index + 1).join('/'))
      let isIgnored = false
      for (const rule of rules) {
        if (rule.isException === isIgnored && prefixes.some((prefix) => rule.expression.test(prefix))) {
          isIgnored = !rule.isException
        }
      }
      return isIgnored
    },
  }
}

/** Docker cleans a rule as a path: `/a/`, `./a` and `a` are one. */
function normalRule(rule: string): string {
  const parts = rule.split('/').filter((part) => part !== '' && part !== '.')
  return parts.join('/') || '.'
}

/** One token of a pattern after the other, each with what it means as a regular expression. */
const TOKENS: readonly (readonly [token: RegExp, meaning: (match: RegExpExecArray) => string])[] = [
  [/^\*\*\//, () => '(?:.*/)?'],
  [/^\*\*/, () => '.*'],
  [/^\*/, () => '[^/]*'],
  [/^\?/, () => '[^/]'],
  [/^\[(\^?)(\]?[^\]]*)\]/, ([, not, members = '']) => `[${not ? '^/' : ''}${members.replace(/[\\\][^]/g, '\\$&')}]`],
  [/^\\(.)/s, ([, char = '']) => escapeLiteral(char)],
  [/^./s, ([char]) => escapeLiteral(char)],
]

function toRegExp(pattern: string): string {
  let expression = ''
  for (let rest = pattern; rest !== ''; ) {
    for (const [token, meaning] of TOKENS) {
      const match = token.exec(rest)
      if (!match) continue
      expression += meaning(match)
      rest = rest.slice(match[0].length)
      break
    }
  }
  return expression
}

function escapeLiteral(char: string): string {
  return char.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
}
