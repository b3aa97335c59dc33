// A server as a person starts one: its own process, its own state folder, a free port.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readConfig } from '../../contract/config.ts'
import { clean } from '../../native/index.ts'

export const ROOT = join(import.meta.dirname, '../..')
const MAIN = join(ROOT, 'cli/main.ts')

export interface Started {
  readonly url: string
  readonly pid: number
  readonly functions: readonly string[]
  readonly process: ChildProcess
  readonly home: string
  /** All that was written to stderr so far. */
  readonly log: () => string
  invoke(name: string, payload?: string | Uint8Array, headers?: Record<string, string>): Promise<Response>
  mayfly(args: readonly string[], input?: string): { code: number | null; out: string; err: string }
}

export function temporaryHome(): string {
  return mkdtempSync(join(tmpdir(), 'mayfly test-'))
}

const started = new Set<Started>()

/** Whatever a failed test left running. */
export async function abandonAll(): Promise<void> {
  await Promise.all([...started].map(abandon))
}

/** Ends the server at once, as a crash would, and removes its folder. */
export async function abandon(server: Started): Promise<void> {
  started.delete(server)
  if (server.process.exitCode === null && server.process.signalCode === null) {
    server.process.kill('SIGKILL')
    await once(server.process, 'exit')
  }
  // What a next start would: the groups of a killed life are found by the record in this folder alone.
  await clean(server.home, readConfig().uidBase)
  // Layers are removed by sandboxd's last moment and by us: whoever comes second finds nothing.
  rmSync(server.home, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
}

export async function startServer(home = temporaryHome(), env: Record<string, string> = {}): Promise<Started> {
  const all = { ...process.env, PORT: '0', MAYFLY_HOME: home, MAYFLY_SLOTS: '32', ...env }
  const child = spawn(process.execPath, [MAIN, 'serve', '--json'], { env: all, stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  let out = ''
  child.stderr.on('data', (chunk) => {
    log += chunk
  })
  const { url, pid, functions } = await new Promise<{ url: string; pid: number; functions: string[] }>(
    (resolve, reject) => {
      child.stdout.on('data', (chunk) => {
        out += chunk
        if (out.endsWith('}\n')) resolve(JSON.parse(out))
      })
      child.once('exit', (code) => reject(new Error(`the server ended with ${code}:\n${log}`)))
    },
  )
  const server: Started = {
    url,
    pid,
    functions,
    process: child,
    home,
    log: () => log,
    invoke: (name, payload = '', headers = {}) =>
      fetch(`${url}/v1/functions/${name}/invoke`, {
        method: 'POST',
        body: payload as string | Uint8Array<ArrayBuffer>,
        headers,
      }),
    mayfly(args, input = '') {
      const result = spawnSync(process.execPath, [MAIN, ...args], {
        input,
        encoding: 'utf8',
        env: { ...all, MAYFLY_URL: url },
      })
      return { code: result.status, out: result.stdout, err: result.stderr }
    },
  }
  started.add(server)
  return server
}

/** Waits for a condition, with a deadline. */
export async function until(holds: () => boolean | Promise<boolean>, what: string, deadlineMs = 10_000): Promise<void> {
  const end = performance.now() + deadlineMs
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not in ${deadlineMs} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
