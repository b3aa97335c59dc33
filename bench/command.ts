// What the command line asks for. Wrong is said before anything runs.
import { parseArgs } from 'node:util'

export type Command =
  | { readonly kind: 'help' }
  | {
      readonly kind: 'run'
      readonly scenarios: readonly string[]
      readonly isQuick: boolean
      readonly runs: number
      readonly json: string | undefined
      readonly html: string | undefined
    }
  | { readonly kind: 'compare'; readonly before: string; readonly after: string; readonly asJson: boolean }
  | { readonly kind: 'peers'; readonly install: boolean }

/** Exit code 2. */
export class UsageError extends Error {}

const RUNS_MAX = 99

export function usage(scenarios: readonly { readonly name: string; readonly help: string }[]): string {
  const width = Math.max(...scenarios.map(({ name }) => name.length)) + 2
  return `usage: npm run bench -- [SCENARIO…] [--quick] [--runs N] [--json FILE] [--html FILE]
       npm run bench -- compare A.json B.json [--json]
       npm run bench -- peers [--install]

${scenarios.map(({ name, help }) => `  ${name.padEnd(width)}${help}`).join('\n')}

  --quick      a smoke run that fails on wrong answers only
  --runs N     all of it N times: ratios and figures are medians, and how far the runs lie apart is said
  --json FILE  also write what was measured
  --html FILE  also draw it, as one page that needs nothing else
  compare      what got better or worse from A to B beyond noise; exit code 1 when something got worse
  peers        what others there are to measure beside, and how to install those that are missing
`
}

export function parseCommand(args: readonly string[], scenarios: readonly string[]): Command {
  const [first, ...rest] = args
  try {
    if (first === 'compare') return parseCompare(rest)
    if (first === 'peers') return parsePeers(rest)
    return parseRun([...args], scenarios)
  } catch (cause) {
    throw new UsageError((cause as Error).message, { cause })
  }
}

const help = { type: 'boolean', short: 'h', default: false } as const

function parseRun(args: string[], known: readonly string[]): Command {
  const options = {
    quick: { type: 'boolean', default: false },
    runs: { type: 'string', default: '1' },
    json: { type: 'string' },
    html: { type: 'string' },
    help,
  } as const
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true })
  if (values.help) return { kind: 'help' }
  const unknown = positionals.find((name) => !known.includes(name))
  if (unknown !== undefined) throw new Error(`${JSON.stringify(unknown)} is no scenario`)
  if (!/^[1-9]\d*$/.test(values.runs) || Number(values.runs) > RUNS_MAX) {
    throw new Error(`--runs is a number from 1 to ${RUNS_MAX}, not ${JSON.stringify(values.runs)}`)
  }
  for (const name of ['json', 'html'] as const) {
    if (values[name] === '') throw new Error(`--${name} is the name of a file`)
  }
  if (values.json !== undefined && values.json === values.html) throw new Error('--json and --html name the same file')
  // Asked for twice is measured once; in the order of the list, so that results lie side by side.
  const scenarios = known.filter((name) => positionals.length === 0 || positionals.includes(name))
  const { quick: isQuick, json, html } = values
  return { kind: 'run', scenarios, isQuick, runs: Number(values.runs), json, html }
}

function parseCompare(args: string[]): Command {
  const options = { json: { type: 'boolean', default: false }, help } as const
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true })
  if (values.help) return { kind: 'help' }
  const [before, after, ...more] = positionals
  if (before === undefined || after === undefined || more.length > 0) {
    throw new Error(`compare takes two results, not ${positionals.length}`)
  }
  return { kind: 'compare', before, after, asJson: values.json }
}

function parsePeers(args: string[]): Command {
  const options = { install: { type: 'boolean', default: false }, help } as const
  const { values } = parseArgs({ args, options })
  return values.help ? { kind: 'help' } : { kind: 'peers', install: values.install }
}
