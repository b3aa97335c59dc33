// What a command of the command line is: its words, its options, an example, and what it does.
import type { ParseArgsOptionsConfig } from 'node:util'
import type { Config } from '../contract/config.ts'
import type { Api } from './api.ts'
import type { Output } from './output.ts'

export interface Command {
  /** The operands as help shows them, such as `NAME [SANDBOX]`. */
  readonly operands: string
  readonly summary: string
  readonly example: string
  /** How many operands it takes. */
  readonly arity: readonly [min: number, max: number]
  readonly options?: ParseArgsOptionsConfig & Record<string, { readonly help: string }>
  /** Resolves to the exit code. */
  run(input: Input): Promise<number>
}

export interface Input {
  readonly operands: readonly string[]
  readonly options: Options
  readonly config: Config
  readonly api: Api
  readonly output: Output
}

export interface Options {
  text(name: string): string | undefined
  has(name: string): boolean
}

/** The command line was wrong: exit code 2, as of the shell's own. */
export class UsageError extends Error {}
