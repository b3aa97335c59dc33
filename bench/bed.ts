// What every scenario stands on: the programs to call, an image of them, pools in folders of their own, and the check
// that an answer is right and its sandbox was never seen before.
import { execFile } from 'node:child_process'
import { cp, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { readConfig } from '../contract/config.ts'
import { type FunctionSpec, type Image, type Manifest, parseManifest, resolveFunction } from '../contract/function.ts'
import type { Invocation, Start } from '../contract/invocation.ts'
import { buildImage } from '../images/build.ts'
import { openStore, type Store } from '../images/store.ts'
import { openPool, type Pool, type PoolOptions } from '../worker/pool.ts'

const run = promisify(execFile)

export const PAYLOAD_BYTES = 256
/**
 * Above the ranges of the server and of the tests, so that a bench beside them cannot reach their processes. A second
 * bench on the machine, with a MAYFLY_HOME of its own, must be given a range of its own too.
 */
const UID_BASE = Number(process.env.MAYFLY_BENCH_UID_BASE || 0x7200_0000)
const UID_COUNT = 65_536
/** `echo` answers any number of calls, `guest` and `stdio` one. */
const FUNCTIONS = {
  echo: 'examples/echo/echo.c',
  guest: 'bench/guests/guest.c',
  stdio: 'bench/guests/stdio.c',
}
/** Those that start what is no function of ours. */
const STARTERS = {
  spawner: 'bench/guests/spawner.c',
  starter: 'bench/guests/starter.c',
}
export type Program = keyof typeof FUNCTIONS

export interface Bed {
  /** Beside the server's, and kept for the next run. */
  readonly folder: string
  /** A folder that holds the programs and is a root for peers; the image has the same files. */
  readonly root: string
  readonly checked: { answers: number; readonly sandboxes: Set<string> }
  /** Where the program is for a function that has no root of its own. */
  pathWithoutRoot(program: Program): string
  /** Each number is a folder and a range of ids of its own, so that two pools can be open. */
  openPool(number: number, options: Omit<PoolOptions, 'home' | 'uidBase'>): Promise<Pool>
  place(number: number): { readonly home: string; readonly uidBase: number }
  /** The contract is `link` where none is named. */
  spec(manifest: Omit<Manifest, 'image' | 'contract'> & Partial<Pick<Manifest, 'contract'>>): FunctionSpec
  deploy(pool: Pool, spec: FunctionSpec): Promise<void>
  /** Throws unless it is the payload that came back, from a sandbox of its own: never seen before, or `reused`. */
  check(invocation: Invocation, payload: Uint8Array, start: Start): void
  checkBytes(name: string, answer: Uint8Array, payload: Uint8Array): void
}

/** The folder stays, beside the server's: after a crash the next run finds the records of what to clear. */
export async function openBed(): Promise<Bed> {
  const folder = `${readConfig().home}-bench`
  const root = join(folder, 'root')
  await compilePrograms(root)
  const store = openStore(join(folder, 'store'))
  const image = await buildImageOf(root, store)
  const digest = image.layers[0]?.replace(/^sha256:/, '')
  const checked = { answers: 0, sandboxes: new Set<string>() }
  const place = (number: number) => ({
    home: join(folder, `pool-${number}`),
    uidBase: UID_BASE + number * UID_COUNT,
  })
  const checkBytes: Bed['checkBytes'] = (name, answer, payload) => {
    if (Buffer.compare(answer, payload) !== 0) throw new Error(`${name} gave a wrong answer`)
    checked.answers += 1
  }
  return {
    folder,
    root,
    checked,
    place,
    checkBytes,
    pathWithoutRoot: (program) => `/layers/${digest}/${program}`,
    openPool: (number, options) => openPool({ ...options, ...place(number) }),
    spec: (manifest) => resolveFunction(parseManifest({ contract: 'link', ...manifest, image: image.digest }), image),
    async deploy(pool, spec) {
      for (const layer of spec.layers) await pool.unpackLayer(layer, store.blobPath(layer))
      await pool.deploy(spec)
    },
    check({ outcome, sandbox, start }, payload, expected) {
      if (outcome.status !== 'ok') throw new Error(`a call ended as ${JSON.stringify({ ...outcome, logs: undefined })}`)
      if (start !== expected) throw new Error(`a call that should start ${expected} started ${start}`)
      if (start === 'reused') {
        if (!checked.sandboxes.has(sandbox)) throw new Error(`sandbox ${sandbox} is reused and was never used`)
      } else if (checked.sandboxes.has(sandbox)) throw new Error(`sandbox ${sandbox} answered a second call`)
      checked.sandboxes.add(sandbox)
      checkBytes('a function', outcome.output, payload)
    },
  }
}

/** Different each time, so that an answer to another call is a wrong one. */
export function createPayloads(): () => Buffer {
  const payload = Buffer.alloc(PAYLOAD_BYTES, 'mayfly ')
  let calls = 0
  return () => {
    calls += 1
    payload.writeUInt32LE(calls)
    return payload
  }
}

/** How long a pool may take to destroy what it has. */
const CLOSE_MS_MAX = 20_000

/** One that does not close is said and left, so that it cannot hide why the run failed, and fails a run that did not. */
export async function closePools(...pools: readonly Pool[]): Promise<void> {
  const late = Symbol('late')
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<symbol>((resolve) => {
    timer = setTimeout(() => resolve(late), CLOSE_MS_MAX)
  })
  const closed = await Promise.race([Promise.all(pools.map((pool) => pool.close())), deadline])
  clearTimeout(timer)
  if (closed !== late) return
  process.exitCode = 1
  for (const pool of pools) {
    const left = pool.sandboxes().map(({ id, state }) => `${id} ${state}`)
    process.stderr.write(`\nbench: a pool did not close in ${CLOSE_MS_MAX / 1000} s; left: ${left.join(', ')}\n`)
  }
}

async function compilePrograms(root: string): Promise<void> {
  // Mount points for peers that bind this folder read-only.
  for (const name of ['proc', 'dev']) await mkdir(join(root, name), { recursive: true, mode: 0o755 })
  for (const [name, source] of Object.entries({ ...FUNCTIONS, ...STARTERS })) {
    const options = ['-std=c17', '-O2', '-static', '-o', join(root, name)]
    await run('gcc', [...options, join(import.meta.dirname, '..', source)]).catch(
      (cause: { code?: unknown; stderr?: string }) => {
        const isMissing = cause.code === 'ENOENT'
        const why = isMissing ? 'gcc is missing; apt-get install gcc' : `${source} does not compile: ${cause.stderr}`
        throw new Error(why, { cause })
      },
    )
  }
}

async function buildImageOf(root: string, store: Store): Promise<Image> {
  const context = `${root}-context`
  await mkdir(context, { recursive: true })
  const names = Object.keys(FUNCTIONS)
  for (const name of names) await cp(join(root, name), join(context, name))
  await writeFile(join(context, 'Dockerfile'), `FROM scratch\nCOPY ${names.join(' ')} /\nENTRYPOINT ["/echo"]\n`)
  return await buildImage({ context, store })
}
