// The world that the privileged suites share: guests compiled once, an image of them, and a house, which is a pool of
// its own in a folder of its own with the probe deployed in it.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Image, type Manifest, parseManifest, resolveFunction } from '../contract/function.ts'
import type { Invocation, InvokeOptions } from '../contract/invocation.ts'
import type { Outcome } from '../contract/outcome.ts'
import { buildImage } from '../images/build.ts'
import { openStore, type Store } from '../images/store.ts'
import { openPool, type Pool } from '../worker/pool.ts'
import { type Audit, audit, auditAtRest, auditSettled, processesOfPool, removeNodes, UID_BASE } from './_host.ts'

export type PoolOptions = NonNullable<Parameters<typeof openPool>[0]>

/** What the probe's manifest says beyond its name, perhaps by the image. */
export type ProbeManifest = Partial<Manifest> | ((image: Image) => Partial<Manifest>)

/** What a row of the probe saw (test/guests/probe). */
export type Seen = Readonly<Record<string, unknown>>

/** Host root can build houses anywhere; what else can is for the VM's tests to show. */
const isPrivileged = process.getuid?.() === 0

/** A suite that needs real sandboxes. Without the means it is skipped and says why; in CI a skip is a failure. */
export function privileged(name: string, body: () => void): void {
  if (isPrivileged) return void describe(name, body)
  if (process.env['MAYFLY_MUST_WORK'] !== '1') return void describe.skip(`${name} (needs root)`, body)
  describe(name, () => {
    it('has the means it needs', () => expect.fail('MAYFLY_MUST_WORK=1, but these tests need root'))
  })
}

export interface House {
  readonly pool: Pool
  readonly home: string
  readonly store: Store
  readonly image: Image
  /** Deploys a function of the probe's image (or of another) and waits until it is ready. */
  deploy(manifest: Omit<Manifest, 'image'>, image?: Image): Promise<void>
  /** One call of the probe: the row and its arguments in a line, and what follows it. */
  invoke(line: string, options?: InvokeOptions & { body?: Uint8Array | string; name?: string }): Promise<Invocation>
  /** The same, expected to come back; what it saw. */
  row(line: string, options?: { body?: Uint8Array | string; name?: string }): Promise<Seen>
  /** The host as it is when every function is at rest. */
  rest(): Promise<Audit>
  close(): Promise<void>
}

/**
 * Opens a house before the tests of the enclosing suite and closes it after them. After each test the host must look
 * as before it, and after the last as if the house had never been.
 */
export function useHouse(options: PoolOptions = {}, manifest: ProbeManifest = {}): House {
  let house: House | undefined
  let before: Audit | undefined
  const standing = () => {
    if (!house) throw new Error('a house stands only while tests run')
    return house
  }
  beforeAll(async () => {
    house = await openHouse(options, manifest)
  })
  beforeEach(async () => {
    before = await standing().rest()
  })
  afterEach(async () => {
    if (!before) return
    const { instance } = standing().pool.stats()
    expect(await auditSettled(instance, before), 'the host after the test').toEqual(before)
  })
  afterAll(async () => {
    if (!house) return
    const { instance } = house.pool.stats()
    const { mounts } = audit(instance)
    await house.close()
    await until(() => processesOfPool().length === 0)
    expect(audit(instance), 'what the house left behind').toMatchObject({ processes: [], cgroups: 0, mounts })
  })
  return new Proxy({} as House, { get: (_, key: keyof House) => standing()[key] })
}

export async function openHouse(options: PoolOptions = {}, manifest: ProbeManifest = {}): Promise<House> {
  const home = options.home ?? mkdtempSync(join(tmpdir(), 'mayfly test '))
  const store = openStore(home)
  const image = await probeImage(store)
  const pool = await openPool({ slots: 32, uidBase: UID_BASE, ...options, home })
  const house: House = {
    pool,
    home,
    store,
    image,
    async deploy(typed, from = image) {
      const parsed = parseManifest({ ...typed, image: from.digest })
      for (const layer of from.layers) await pool.unpackLayer(layer, store.blobPath(layer))
      await pool.deploy(resolveFunction(parsed, from))
    },
    async invoke(line, { body = '', name = 'probe', ...rest } = {}) {
      return await pool.invoke(name, Buffer.concat([Buffer.from(`${line}\n`), Buffer.from(body)]), rest)
    },
    async row(line, rest = {}) {
      return JSON.parse(textOf((await house.invoke(line, rest)).outcome)) as Seen
    },
    async rest() {
      await until(() => {
        const { functions, slots } = pool.stats()
        const ready = functions.reduce((sum, each) => sum + each.ready, 0)
        // Slots of sandboxes that are still being built or destroyed are neither cold nor ready.
        return functions.every((each) => each.ready > 0 && each.leased === 0) && slots.total - slots.cold === ready
      })
      return await auditAtRest(pool.stats().instance)
    },
    async close() {
      await pool.close()
      removeNodes()
      if (options.home === undefined) rmSync(home, { recursive: true, force: true })
    },
  }
  try {
    await house.deploy({
      name: 'probe',
      contract: 'link',
      pool: { min: 2, max: 2 },
      ...(typeof manifest === 'function' ? manifest(image) : manifest),
    })
  } catch (error) {
    await house.close()
    throw error
  }
  return house
}

/** The result of a call that came back; of any other, an error that shows how it ended. */
export function textOf(outcome: Outcome): string {
  if (outcome.status !== 'ok') throw new Error(`not ok: ${JSON.stringify({ ...outcome, logs: undefined })}`)
  return Buffer.from(outcome.output).toString()
}

/** Waits for a condition; the deadline is for a broken one only. */
export async function until(condition: () => boolean, deadlineMs = 10_000): Promise<void> {
  const end = performance.now() + deadlineMs
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms for: ${condition}`)
    await delay(5)
  }
}

/** FROM scratch, the probe, the same with set-id bits, and a folder to remove. */
async function probeImage(store: Store): Promise<Image> {
  const context = mkdtempSync(join(tmpdir(), 'mayfly-context-'))
  try {
    cpSync(guest('probe'), join(context, 'probe'))
    mkdirSync(join(context, 'folder/deeper'), { recursive: true })
    writeFileSync(join(context, 'folder/file'), 'of the image\n')
    writeFileSync(join(context, 'folder/deeper/file'), 'of the image\n')
    mkdirSync(join(context, 'open/inner'), { recursive: true })
    cpSync(join(context, 'folder/deeper'), join(context, 'open/inner/deeper'), { recursive: true })
    const lines = [
      'FROM scratch',
      'COPY --chmod=755 probe /probe',
      'COPY --chmod=6755 probe /probe-set-id',
      'COPY folder /folder/',
      'COPY --chmod=777 open /open/',
      'ENV FROM_IMAGE=yes',
      'ENTRYPOINT ["/probe"]',
    ]
    writeFileSync(join(context, 'Dockerfile'), `${lines.join('\n')}\n`)
    return await buildImage({ context, store })
  } finally {
    rmSync(context, { recursive: true, force: true })
  }
}

/** The static binary of `test/guests/<name>/*.c`, compiled once per content. */
export function guest(name: string): string {
  const folder = join(import.meta.dirname, 'guests', name)
  const names = readdirSync(folder).sort()
  const hash = createHash('sha256')
  for (const file of names) hash.update(file).update(readFileSync(join(folder, file)))
  const cache = join(tmpdir(), `mayfly-guests-${process.getuid?.() ?? 0}`)
  const binary = join(cache, `${name}-${hash.digest('hex').slice(0, 16)}`)
  if (existsSync(binary)) return binary
  mkdirSync(cache, { recursive: true, mode: 0o700 })
  const sources = names.filter((file) => file.endsWith('.c')).map((file) => join(folder, file))
  const draft = `${binary}.${process.pid}`
  execFileSync('cc', ['-std=c17', '-static', '-O2', '-Wall', '-Wextra', '-Werror', '-o', draft, ...sources])
  renameSync(draft, binary)
  return binary
}
