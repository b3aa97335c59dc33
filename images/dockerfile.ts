// What a Dockerfile asks for: its instructions in order, each with its line, arguments not yet expanded. It accepts
// what Mayfly can build, from scratch and in one stage, and says by line what it cannot.
import { PlatformError } from '../contract/errors.ts'
import { type Syntax, splitWords } from './words.ts'

const SUPPORTED = ['COPY', 'ENV', 'WORKDIR', 'ENTRYPOINT', 'CMD', 'LABEL', 'USER'] as const
type Keyword = (typeof SUPPORTED)[number]

/** Instructions of Docker that mean something elsewhere, and what to do instead. */
const UNSUPPORTED: Readonly<Record<string, string>> = {
  ADD: 'use COPY, and unpack or download beforehand',
  ARG: 'write the value, or an ENV',
  EXPOSE: 'a function has no network',
  HEALTHCHECK: 'the pool looks after its sandboxes itself',
  MAINTAINER: 'use LABEL',
  ONBUILD: 'no image is built from another',
  RUN: 'an image from scratch has nothing to run; build beforehand and COPY the result',
  SHELL: 'an image from scratch has no shell',
  STOPSIGNAL: 'a function is ended by SIGKILL',
  VOLUME: 'a function keeps nothing between calls',
}

export interface Instruction {
  readonly line: number
  readonly keyword: Keyword
  /** `--chmod=755` and the like, before the arguments. */
  readonly flags: Readonly<Record<string, string>>
  /** All after the flags, continuation lines joined. */
  readonly rest: string
  readonly syntax: Syntax
}

interface LogicalLine {
  readonly line: number
  readonly text: string
}

export function parseDockerfile(source: string): readonly Instruction[] {
  const lines = source.replace(/^\uFEFF/, '').split(/\r?\n/)
  const directives = readDirectives(lines)
  const [from, ...others] = joinLines(lines, directives.escape)
  if (!from) throw refusal(1, 'the Dockerfile holds no instruction; it begins with FROM scratch')
  requireScratch(from)
  return others.map((logical) => parseInstruction(logical, directives.escape))
}

/** INVALID_IMAGE at a line of the Dockerfile. */
export function refusal(line: number, problem: string): PlatformError {
  return new PlatformError('INVALID_IMAGE', `Dockerfile line ${line}: ${problem}`)
}

/** The exec form: a JSON array of strings. `undefined` when it is not meant to be one. */
export function parseExecForm(instruction: Instruction): readonly string[] | undefined {
  if (!instruction.rest.startsWith('[')) return undefined
  let json: unknown
  try {
    json = JSON.parse(instruction.rest)
  } catch {
    return undefined
  }
  return Array.isArray(json) && json.every((item) => typeof item === 'string') ? json : undefined
}

/** Directives count only before anything else; `# escape=` changes how all that follows is read. */
function readDirectives(lines: readonly string[]): { escape: string } {
  let escapeChar = '\\'
  for (const [index, text] of lines.entries()) {
    const match = /^#\s*([A-Za-z]+)\s*=\s*(.*?)\s*$/.exec(text.trimStart())
    if (!match) break
    const [, name, value] = match as unknown as [string, string, string]
    if (name.toLowerCase() === 'escape') {
      if (value !== '\\' && value !== '`') throw refusal(index + 1, 'the escape character is \\ or `')
      escapeChar = value
    } else if (name.toLowerCase() === 'syntax' && !/^(docker\.io\/)?docker\/dockerfile(:|$)/.test(value)) {
      throw refusal(index + 1, `the syntax ${value} is not supported; Mayfly reads docker/dockerfile itself`)
    } else if (!['syntax', 'check'].includes(name.toLowerCase())) {
      break
    }
  }
  return { escape: escapeChar }
}

/** Joins continued lines. Comments and empty lines inside a continuation are dropped, as Docker does. */
function joinLines(lines: readonly string[], escapeChar: string): LogicalLine[] {
  const continued = new RegExp(`(^|[^\\${escapeChar}])\\${escapeChar}[ \\t]*$`)
  const joined: LogicalLine[] = []
  let open: LogicalLine | undefined
  for (const [index, text] of lines.entries()) {
    if (/^\s*(#|$)/.test(text)) continue
    const start: LogicalLine = open ?? { line: index + 1, text: '' }
    const isContinued = continued.test(text)
    const piece = isContinued ? text.replace(continued, '$1') : text
    open = { line: start.line, text: start.text + (open ? piece : piece.trimStart()) }
    if (isContinued) continue
    joined.push({ line: open.line, text: open.text.trimEnd() })
    open = undefined
  }
  return open ? [...joined, { line: open.line, text: open.text.trimEnd() }] : joined
}

function requireScratch({ line, text }: LogicalLine): void {
  const [keyword = '', ...words] = text.split(/\s+/)
  if (keyword.toUpperCase() !== 'FROM') throw refusal(line, 'the first instruction is FROM scratch')
  const [base, as, name] = words
  if (base?.startsWith('--')) throw refusal(line, `FROM ${base} is not supported; an image is built for this machine`)
  if (base?.toLowerCase() !== 'scratch') {
    throw refusal(
      line,
      `FROM ${base ?? ''} is not supported: images are built FROM scratch; \`mayfly image pack\` copies a program of this machine with its libraries`,
    )
  }
  if (words.length !== 1 && !(words.length === 3 && as?.toUpperCase() === 'AS' && name)) {
    throw refusal(line, 'FROM scratch takes no more than AS and a name')
  }
}

function parseInstruction({ line, text }: LogicalLine, escapeChar: string): Instruction {
  const [, word = '', after = ''] = /^(\S+)\s*(.*)$/s.exec(text) ?? []
  const keyword = word.toUpperCase()
  if (keyword === 'FROM') throw refusal(line, 'a second stage is not supported; build beforehand and COPY the result')
  const hint = Object.hasOwn(UNSUPPORTED, keyword) ? UNSUPPORTED[keyword] : undefined
  if (hint) throw refusal(line, `${keyword} is not supported: ${hint}`)
  if (!isSupported(keyword)) throw refusal(line, `${JSON.stringify(word.slice(0, 40))} is no instruction`)
  const syntax: Syntax = {
    escape: escapeChar,
    refuse: (problem) => {
      throw refusal(line, `${keyword}: ${problem}`)
    },
  }
  const { flags, rest } = keyword === 'COPY' ? takeFlags(after, syntax) : { flags: {}, rest: after }
  if (rest === '') throw refusal(line, `${keyword} needs an argument`)
  // A heredoc's body would be read as instructions.
  if (keyword === 'COPY' && splitWords(rest, syntax).some((argument) => /^\d*<<-?\S/.test(argument))) {
    throw refusal(line, 'a heredoc (<<) is not supported; put the content into a file and COPY that')
  }
  return { line, keyword, flags, rest, syntax }
}

function takeFlags(text: string, syntax: Syntax): { flags: Record<string, string>; rest: string } {
  const flags: Record<string, string> = {}
  let rest = text
  for (;;) {
    const match = /^--([a-z-]+)(?:=(\S*))?(?:\s+|$)/.exec(rest)
    if (!match) return { flags, rest }
    const [all, name = '', value = ''] = match
    if (Object.hasOwn(flags, name)) syntax.refuse(`--${name} is given twice`)
    flags[name] = value
    rest = rest.slice(all.length)
  }
}

function isSupported(keyword: string): keyword is Keyword {
  return (SUPPORTED as readonly string[]).includes(keyword)
}
