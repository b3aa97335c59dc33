#!/usr/bin/env node
// The command line: finds the command, reads its options, runs it, and turns what went wrong into one line and an exit
// code (1: it failed, 2: the command line was wrong).
import { readFileSync } from 'node:fs'
import { type ParseArgsOptionsConfig, parseArgs } from 'node:util'
import { readConfig } from '../contract/config.ts'
import { PlatformError } from '../contract/errors.ts'
import { ApiError, createApi } from './api.ts'
import { type Command, type Options, UsageError } from './command.ts'
import { config } from './commands/config.ts'
import { deploy } from './commands/deploy.ts'
import { doctor } from './commands/doctor.ts'
import { imageBuild, imageList, imagePack } from './commands/image.ts'
import { inspect } from './commands/inspect.ts'
import { invoke } from './commands/invoke.ts'
import { ls } from './commands/ls.ts'
import { ps } from './commands/ps.ts'
import { rm } from './commands/rm.ts'
import { serve } from './commands/serve.ts'
import { createOutput, printable } from './output.ts'

const COMMANDS: Readonly<Record<string, Command>> = {
  serve,
  doctor,
  deploy,
  invoke,
  ls,
  ps,
  inspect,
  rm,
  'image build': imageBuild,
  'image pack': imagePack,
  'image ls': imageList,
  config,
}

const COMMON = {
  json: { type: 'boolean', help: 'print JSON' },
  help: { type: 'boolean', short: 'h', help: 'say how the command is used' },
  version: { type: 'boolean', help: 'print the version' },
} as const

export async function main(args: readonly string[]): Promise<number> {
  try {
    return await run(args)
  } catch (error) {
    const code = error instanceof PlatformError || error instanceof ApiError ? `${error.code}: ` : ''
    process.stderr.write(`mayfly: ${code}${printable(error instanceof Error ? error.message : String(error))}\n`)
    return error instanceof UsageError ? 2 : 1
  }
}

async function run(args: readonly string[]): Promise<number> {
  const [first = '', second = ''] = args
  if (first === '--version') return print(`${version()}\n`)
  if (first === '' || first === '--help' || first === '-h' || first === 'help') return print(overview())
  const name = `${first} ${second}` in COMMANDS ? `${first} ${second}` : first
  const command = COMMANDS[name]
  if (command === undefined) throw new UsageError(`${JSON.stringify(first)} is no command; see mayfly --help`)
  const { options, operands } = parse(name, command, args.slice(name.split(' ').length))
  if (options.has('help')) return print(helpOf(name, command))
  const [min, max] = command.arity
  if (operands.length < min || operands.length > max) {
    throw new UsageError(`usage: mayfly ${name} ${command.operands}`.trimEnd())
  }
  const settings = readConfig()
  const output = createOutput(options.has('json'))
  return command.run({ operands, options, config: settings, api: createApi(settings.url), output })
}

function parse(name: string, command: Command, args: string[]): { options: Options; operands: readonly string[] } {
  const options: ParseArgsOptionsConfig = { ...COMMON, ...command.options }
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true })
    const text = (option: string) => (typeof values[option] === 'string' ? values[option] : undefined)
    return { options: { text, has: (option) => values[option] === true }, operands: positionals }
  } catch (cause) {
    throw new UsageError(`${(cause as Error).message.split('\n', 1)[0]} (see mayfly ${name} --help)`, { cause })
  }
}

function overview(): string {
  const rows = Object.entries(COMMANDS).map(
    ([name, { operands, summary }]) => [`${name} ${operands}`, summary] as const,
  )
  const width = Math.max(...rows.map(([usage]) => usage.length))
  const lines = rows.map(([usage, summary]) => `  ${usage.padEnd(width)}  ${summary}`)
  return [
    'Usage: mayfly COMMAND [OPTION…]\n',
    ...lines,
    '\nEvery command has --help and --json. mayfly --version prints the version.',
    "Example: mayfly invoke echo --data 'hello'\n",
  ].join('\n')
}

function helpOf(name: string, { operands, summary, options, example }: Command): string {
  const rows = Object.entries<{ type: string; help: string }>({ ...options, json: COMMON.json, help: COMMON.help })
  const lines = rows.map(
    ([option, { type, help }]) => `  ${`--${option}${type === 'string' ? ' VALUE' : ''}`.padEnd(20)} ${help}`,
  )
  const usage = `Usage: mayfly ${name} ${operands} [OPTION…]`.replace('  ', ' ')
  return [usage, '', summary, '', ...lines, '', `Example: ${example}`, ''].join('\n')
}

function version(): string {
  const { version: text } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string
  }
  return text
}

function print(text: string): number {
  process.stdout.write(text)
  return 0
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2))
