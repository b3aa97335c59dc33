// What every test of the suite stands on: one pool, one image with the guest program, and a way to deploy and call it.
import assert from 'node:assert/strict'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { readConfig } from '../../contract/config.ts'
import { type Image, type Manifest, parseManifest, resolveFunction } from '../../contract/function.ts'
import type { Invocation, InvokeOptions } from '../../contract/invocation.ts'
import type { Outcome, OutcomeStatus } from '../../contract/outcome.ts'
import { buildImage } from '../../images/build.ts'
import { openStore, type Store } from '../../images/store.ts'
import { openPool, type Pool } from '../../worker/pool.ts'
import { compileGuest } from './guest.ts'

/** How much slower than hardware this machine is: waits for something to happen are stretched by it. */
const SLOWNESS = Number(process.env['MAYFLY_TEST_SLOWNESS'] ?? 1)

/** /data is what an image lets its function change; everything else of an image is root's. */
const DOCKERFILE = `FROM scratch
COPY --chmod=755 limits /limits
COPY --chmod=777 data /data
COPY --chmod=755 data /fixed
ENTRYPOINT ["/limits"]
`

export type Call = (payload: string | Uint8Array, options?: InvokeOptions) => Promise<Invocation>

/** The one world of the suite: its parts share it, since one home has one pool at a time. */
class World {
  readonly #config = readConfig()
  readonly #store = openStore(this.#config.home)
  #image!: Image
  #deployed = 0
  pool!: Pool

  async open(): Promise<void> {
    this.pool = await openPool({ ...this.#config, slots: 16 })
    this.#image ??= await buildGuestImage(this.#store)
  }

  async close(): Promise<void> {
    await this.pool.close()
  }

  /** Ends the pool and opens another one over the same state. */
  async reopen(): Promise<void> {
    await this.close()
    await this.open()
  }

  /** Deploys the guest, which takes the contract as its argument. */
  async deploy(manifest: Partial<Manifest>): Promise<string> {
    const contract = manifest.contract ?? 'link'
    const name = `guest-${this.#deployed++}`
    const command = ['/limits', contract]
    const whole = { name, image: this.#image.digest, contract, command, pool: { min: 1, max: 4 }, ...manifest }
    const spec = resolveFunction(parseManifest(whole), this.#image)
    for (const layer of spec.layers) await this.pool.unpackLayer(layer, this.#store.blobPath(layer))
    await this.pool.deploy(spec)
    return name
  }

  /** Deploys the guest, runs the body, removes it. */
  async withFunction(manifest: Partial<Manifest>, body: (call: Call) => Promise<void>): Promise<void> {
    const name = await this.deploy(manifest)
    try {
      await body((payload, options) => this.pool.invoke(name, Buffer.from(payload), options))
    } finally {
      await this.pool.remove(name)
    }
  }
}

export const world = new World()

async function buildGuestImage(store: Store): Promise<Image> {
  const context = mkdtempSync(path.join(os.tmpdir(), 'mayfly-guest-'))
  try {
    const prebuilt = process.env['MAYFLY_TEST_GUEST']
    if (prebuilt === undefined) compileGuest(path.join(context, 'limits'))
    else cpSync(prebuilt, path.join(context, 'limits'))
    mkdirSync(path.join(context, 'data/folder/inner'), { recursive: true })
    writeFileSync(path.join(context, 'data/folder/inner/file'), 'of the image\n')
    writeFileSync(path.join(context, 'data/file'), 'of the image\n')
    writeFileSync(path.join(context, 'Dockerfile'), DOCKERFILE)
    return await buildImage({ context, store })
  } finally {
    rmSync(context, { recursive: true })
  }
}

/** On others the controllers have other files, and test/integration looks at them. */
export const IS_V2_ONLY = existsSync('/sys/fs/cgroup/cgroup.controllers')

export const MIB = 1024 * 1024
/** Longer than any test runs: what such a call does is ended by us. */
export const FOREVER = 'sleep 900000'

/** Narrows, and shows the whole outcome where it is another one. */
export function expectStatus<S extends OutcomeStatus>(outcome: Outcome, status: S): Extract<Outcome, { status: S }> {
  assert.equal(outcome.status, status, JSON.stringify({ ...outcome, logs: text(outcome.logs) }).slice(0, 500))
  return outcome as Extract<Outcome, { status: S }>
}

export const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()
export const answerOf = (outcome: Outcome) => text(expectStatus(outcome, 'ok').output).trimEnd()

/** Waits for a condition, and says which one when it does not come true in time. */
export async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 2000 * SLOWNESS
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not in time: ${what}`)
    await delay(10)
  }
}

export interface Process {
  readonly pid: number
  readonly name: string
  /** Real, effective, saved and file-system id, as this process sees them. */
  readonly uids: readonly number[]
}

/** What runs in the groups of this instance of a pool: sandboxd, and every sandbox with its init. */
export function processesOf(instance: string): Process[] {
  const pids = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))
  return pids.flatMap((pid) => {
    try {
      if (!readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes(`/${instance}/`)) return []
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      const uids = (/^Uid:\t(.*)$/m.exec(status)?.[1] ?? '').split('\t').map(Number)
      return [{ pid: Number(pid), name: /^Name:\t(.*)$/m.exec(status)?.[1] ?? '', uids }]
    } catch {
      // It ended while we looked.
      return []
    }
  })
}
