// The two servers that are compared over HTTP: ours, started as a user starts it and with functions deployed before, and
// a plain one.
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Manifest, parseManifest, resolveFunction } from '../../contract/function.ts'
import { openRegistry, versionOf } from '../../gateway/registry.ts'
import { buildImage } from '../../images/build.ts'
import { openStore } from '../../images/store.ts'
import { clean } from '../../native/index.ts'
import type { PoolStats } from '../../worker/pool.ts'
import type { Bed } from '../bed.ts'

const MAIN = join(import.meta.dirname, '../../cli/main.ts')
/** Neither of those whose pools are in this process. */
const PLACE = 2
/** For the last of the dead: nothing that is measured waits for it. */
const REST_MS = 30
const STOP_MS_MAX = 20_000

export interface Server {
  readonly url: string
  close(): Promise<void>
}

export interface MayflyServer extends Server {
  /** Until so many sandboxes are ready, no others are left, and the processors are free. */
  rest(): Promise<void>
}

type HttpFunction = Omit<Manifest, 'image' | 'contract'>

export async function startHono(): Promise<Server> {
  const child = fork(join(import.meta.dirname, 'http-hono.ts'))
  const [{ url }] = (await Promise.race([once(child, 'message'), failure(child, 'hono', () => '')])) as [
    { url: string },
  ]
  return {
    url,
    async close() {
      if (child.connected) child.disconnect()
    },
  }
}

export async function startMayfly(bed: Bed, functions: readonly HttpFunction[]): Promise<MayflyServer> {
  const { home, uidBase } = bed.place(PLACE)
  await deployAhead(bed, home, functions)
  const ready = functions.reduce((sum, { pool }) => sum + (pool?.min ?? 0), 0)
  const slots = functions.reduce((sum, { pool }) => sum + (pool?.max ?? 0), 0)
  const own = { PORT: '0', MAYFLY_HOME: home, MAYFLY_UID_BASE: `${uidBase}`, MAYFLY_SLOTS: `${slots}` }
  const env = { ...process.env, ...own }
  const child = spawn(process.execPath, [MAIN, 'serve', '--json'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-2000)
  })
  const url = await Promise.race([announced(child), failure(child, 'the server', () => log)])
  return {
    url,
    async rest() {
      const deadline = performance.now() + 60_000
      while (!(await isFull(url, ready))) {
        if (performance.now() > deadline) throw new Error(`the server’s pool is not full again:\n${log}`)
        await delay(2)
      }
      await delay(REST_MS)
    },
    async close() {
      await stop(child)
      // The server gave up root and cannot.
      await clean(home, uidBase)
    },
  }
}

/** As records of an earlier life: a server without any would build the examples first. */
async function deployAhead(bed: Bed, home: string, functions: readonly HttpFunction[]): Promise<void> {
  const context = join(bed.folder, 'http-context')
  await mkdir(context, { recursive: true })
  await cp(join(bed.root, 'echo'), join(context, 'echo'))
  await writeFile(join(context, 'Dockerfile'), 'FROM scratch\nCOPY echo /\nENTRYPOINT ["/echo"]\n')
  const image = await buildImage({ context, store: openStore(home) })
  const registry = openRegistry(home, (file, cause) => {
    throw new Error(`${file} is unreadable`, { cause })
  })
  for (const { name } of registry.list()) await registry.remove(name)
  for (const one of functions) {
    const manifest = parseManifest({ ...one, image: image.digest, contract: 'link' })
    const spec = resolveFunction(manifest, image)
    await registry.put({
      name: spec.name,
      version: versionOf(spec),
      deployedAt: new Date().toISOString(),
      manifest,
      spec,
    })
  }
}

async function announced(child: ChildProcess): Promise<string> {
  let text = ''
  for await (const chunk of child.stdout ?? []) {
    text += chunk
    if (text.endsWith('}\n')) return (JSON.parse(text) as { url: string }).url
  }
  // It ended, and `failure` knows of what.
  return await new Promise<never>(() => {})
}

async function failure(child: ChildProcess, name: string, log: () => string): Promise<never> {
  const [code, signal] = await once(child, 'exit')
  throw new Error(`${name} ended with ${signal ?? code} before it was ready: ${log()}`)
}

async function isFull(url: string, ready: number): Promise<boolean> {
  const response = await fetch(`${url}/v1/pool`)
  const { functions, slots } = (await response.json()) as PoolStats
  return functions.reduce((sum, one) => sum + one.ready, 0) === ready && slots.total - slots.cold === ready
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX)
  await exited
  clearTimeout(timer)
}
