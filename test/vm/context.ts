// What the files of this folder share: where things are kept, how a command is run, how progress is printed.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

export interface Context {
  /** The project's folder. */
  readonly project: string
  /** What outlives a run: packages, kernel, root disk. */
  readonly cache: string
  /** What does not: disks of this run, results. Removed at the end. */
  readonly temporary: string
  /** Aborted by Ctrl-C and by the run's end: every child process hangs on it. */
  readonly signal: AbortSignal
}

export const PROJECT = fileURLToPath(new URL('../..', import.meta.url))

/** A command that failed, with the end of what it said. */
export class CommandError extends Error {
  constructor(command: string, args: readonly string[], how: string, stderr: string) {
    super(`${command} ${args.join(' ').slice(0, 200)}: ${how}\n${stderr.trim().split('\n').slice(-8).join('\n')}`)
    this.name = 'CommandError'
  }
}

interface RunOptions {
  readonly cwd?: string
  /** Written to the command's standard input. */
  readonly input?: string | NodeJS.ReadableStream
}

/** Runs a command to its end and returns what it printed. */
export async function run(
  context: Context,
  command: string,
  args: string[],
  options: RunOptions = {},
): Promise<string> {
  const child = spawn(command, args, {
    cwd: options.cwd,
    signal: context.signal,
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text))
  // A command that dies early breaks this pipe; its exit status tells the story better.
  child.stdin.on('error', () => {})
  if (typeof options.input === 'object') options.input.pipe(child.stdin)
  else child.stdin.end(options.input)
  const how = await ending(child)
  if (how !== '') throw new CommandError(command, args, how, output.stderr || output.stdout)
  return output.stdout
}

/** Empty when the child exited with 0. */
async function ending(child: ChildProcess): Promise<string> {
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null]
  if (code === 0) return ''
  return signal === null ? `exit status ${code}` : `killed by ${signal}`
}

/** Prints what is being done and, when it is done, how long it took. */
export async function step<T>(what: string, body: () => Promise<T>): Promise<T> {
  const started = performance.now()
  process.stdout.write(`vm: ${what} … `)
  try {
    const result = await body()
    process.stdout.write(`${((performance.now() - started) / 1000).toFixed(1)} s\n`)
    return result
  } catch (error) {
    process.stdout.write('failed\n')
    throw error
  }
}
