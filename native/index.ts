// The one file between policy and mechanism: loads the addon, starts sandboxd through the launcher, and gives what
// crosses the edge its types. Knows no function's name and no pool's size.
import { spawn } from 'node:child_process'
import { closeSync, existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { CODES, type Code, PlatformError } from '../contract/errors.ts'
import { type DoneArguments, type Evidence, evidenceOf, NEXTS, type Next } from './evidence.ts'

export type { Evidence, Next } from './evidence.ts'

const BIN = join(import.meta.dirname, 'bin')
export const LAUNCHER = join(BIN, 'mayfly-launcher')
const SANDBOXD = join(BIN, 'mayfly-sandboxd')
const ADDON = join(BIN, 'addon.node')

/** As the kernel takes them; a call's are checked against the function's before they come here. */
export interface NativeLimits {
  cpuQuotaUs: number
  cpuWeight: number
  memoryBytes: number
  pids: number
  wallMs: number
  cpuMs: number
  outputBytes: number
}

export interface Definition {
  contract: 'link' | 'stdio'
  start: 'eager' | 'lazy'
  isReusable: boolean
  argv: string[]
  /** `NAME=value` each. */
  env: string[]
  cwd: string
  hostname: string
  uid: number
  gid: number
  /** Hexadecimal diff_ids, lowest first. */
  layers: string[]
  tmpBytes: number
  tmpFiles: number
  openFiles: number
  logBytes: number
  ablate: string[]
  limits: NativeLimits
}

export type BuildFailure =
  | { why: 'stage'; stage: string; errno: number }
  | { why: 'exited'; code: number; output: string }
  | { why: 'signaled'; signal: number; output: string }
  | { why: 'spoke'; output: string }
  | { why: 'denied'; syscall: number }
  | { why: 'out_of_memory' | 'never_parked' | 'timed_out' }

export type CoreEvent =
  | { kind: 'hello'; cgroupMode: string; copiesWritable: boolean }
  | { kind: 'defined'; function: number; errno: number }
  | {
      kind: 'ready'
      slot: number
      function: number
      pid: number
      isQuietGuess: boolean
    }
  | { kind: 'again'; slot: number; function: number }
  | { kind: 'failed'; slot: number; function: number; failure: BuildFailure }
  | { kind: 'broken'; slot: number; function: number; what: string }
  | { kind: 'gone'; slot: number }
  | { kind: 'unpacked'; token: number; errno: number; message: string }
  | { kind: 'lost'; why: string }

/** The addon's class; each method is one call into Rust on this thread. */
export interface Core {
  define(id: number, definition: Definition, filter: Uint8Array): void
  undefine(id: number): void
  unpack(token: number, digest: string, path: string): void
  /** Returns the generation. An awaited sandbox is ready once its program is started, at rest or not. */
  build(slot: number, id: number, isAwaited: boolean): number
  /** `isAlone`: no other call is running, so that the function may have this thread's processor. */
  call(slot: number, payload: Uint8Array, isAlone: boolean, limits?: NativeLimits): void
  /** The nanoseconds of each stage, as JSON: of the slot's last build, and of the end of its last that was ready. */
  stages(slot: number): string
  cancel(slot: number, generation: number): boolean
  /** Destroys the sandboxes whose calls were answered since the last time. */
  flush(): void
  retire(slot: number): void
  state(slot: number): string
  close(): void
}

interface Binding {
  Core: new (
    fd: number,
    slots: number,
    onDone: (...done: DoneArguments) => void,
    onSlot: (kind: number, slot: number, id: number, pid: number, isQuietGuess: number) => void,
    onEvent: (json: string) => void,
  ) => Core
  socketPair(): { ours: number; theirs: number }
  compileProfile(json: string): Uint8Array
  syscallName(number: number): string
}

let loaded: Binding | undefined

function binding(): Binding {
  if (!existsSync(ADDON)) {
    throw new PlatformError('HOST_UNFIT', 'the native part is not built; `npm run setup` builds it')
  }
  loaded ??= createRequire(import.meta.url)(ADDON) as Binding
  return loaded
}

export const syscallName = (number: number): string => binding().syscallName(number)

/** The seccomp program of a profile. */
export function compileProfile(json: string): Uint8Array {
  try {
    return binding().compileProfile(json)
  } catch (cause) {
    throw new PlatformError('INVALID_SETTING', `seccomp profile: ${(cause as Error).message}`, { cause })
  }
}

export interface LaunchOptions {
  readonly home: string
  readonly instance: string
  readonly slots: number
  readonly uidBase: number
  readonly cgroup: string
  readonly allowDegraded: boolean
  readonly ablationAllowed: boolean
  readonly onDone: (slot: number, evidence: Evidence, next: Next) => void
  readonly onEvent: (event: CoreEvent) => void
  /** A line that launcher or sandboxd wrote to its stderr. */
  readonly onLine: (line: string) => void
}

/**
 * Starts sandboxd in its house. `onEvent` hears `hello` when it is there; the promise rejects when the launcher
 * refuses, with the launcher's code and remedy.
 */
export function launch(options: LaunchOptions): { core: Core; launched: Promise<void> } {
  const { Core, socketPair } = binding()
  for (const program of [LAUNCHER, SANDBOXD]) {
    if (!existsSync(program)) {
      throw new PlatformError('HOST_UNFIT', `${program} is missing; \`npm run setup\` builds it`)
    }
  }
  const { ours, theirs } = socketPair()
  const core = new Core(
    ours,
    options.slots,
    (...done) => options.onDone(done[0], evidenceOf(done), NEXTS[done[1]] ?? 'ended'),
    (kind, slot, id, pid, isQuietGuess) => options.onEvent(slotEvent(kind, slot, id, pid, isQuietGuess)),
    (json) => options.onEvent(JSON.parse(json) as CoreEvent),
  )
  const args = ['--home', options.home, '--sandboxd', SANDBOXD, '--instance', options.instance]
  args.push('--slots', `${options.slots}`, '--uid-base', `${options.uidBase}`, '--cgroup', options.cgroup)
  args.push('--control-fd', '3')
  if (options.allowDegraded) args.push('--allow-degraded')
  if (options.ablationAllowed) args.push('--ablation-allowed')
  const launched = run(args, theirs, options.onLine)
  closeSync(theirs)
  return { core, launched }
}

/** As the addon numbers them. */
function slotEvent(kind: number, slot: number, id: number, pid: number, isQuietGuess: number): CoreEvent {
  if (kind === 0) return { kind: 'ready', slot, function: id, pid, isQuietGuess: isQuietGuess === 1 }
  return kind === 1 ? { kind: 'again', slot, function: id } : { kind: 'gone', slot }
}

/** Removes what an earlier life left. Where this process may not, the next start does. */
export function clean(home: string, uidBase: number): Promise<void> {
  const args = [
    '--home',
    home,
    '--sandboxd',
    SANDBOXD,
    '--instance',
    'clean',
    '--uid-base',
    `${uidBase}`,
    '--clean-only',
  ]
  return run(args, undefined, () => {})
}

function run(args: string[], control: number | undefined, onLine: (line: string) => void): Promise<void> {
  const child = spawn(LAUNCHER, args, { stdio: ['ignore', 'ignore', 'pipe', control ?? 'ignore'] })
  let last = ''
  let partial = ''
  // sandboxd inherits it, so the stream outlives the launcher.
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    const lines = (partial + text).split('\n')
    partial = lines.pop() ?? ''
    for (const line of lines) {
      last = line
      if (!line.startsWith('{')) onLine(line)
    }
  })
  return new Promise((resolve, reject) => {
    child.once('error', (cause) => reject(new PlatformError('HOST_UNFIT', `cannot start ${LAUNCHER}`, { cause })))
    child.once('exit', (code, signal) => {
      if (code === 0) resolve()
      // What it wrote last may still be in the pipe.
      else setImmediate(() => reject(refusal(last || partial, `the launcher ended with ${signal ?? code}`)))
    })
  })
}

function refusal(line: string, otherwise: string): PlatformError {
  try {
    const said = JSON.parse(line) as { code: Code; message: string; stage: string; errno: number; remedy?: string }
    const code = said.code in CODES ? said.code : 'SETUP_FAILED'
    return new PlatformError(code, said.remedy ? `${said.message}; ${said.remedy}` : said.message, { cause: said })
  } catch {
    return new PlatformError('SETUP_FAILED', line || otherwise)
  }
}
