// What every test of the suite stands on: one pool, one image with the guest program, and a way to deploy and call it.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { readConfig } from '../../contract/config.ts'
import { type Image, type Manifest, parseManifest, resolveFunction } from '../../contract/function.ts'
import type { Invocation, InvokeOptions } from '../../contract/invocation.ts'
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

export interface World {
  pool: Pool
  /** Deploys the guest, runs the body, removes it. `stdio` is the contract and the guest's argument. */
  withFunction(manifest: Partial<Manifest>, body: (call: Call) => Promise<void>): Promise<void>
  deploy(manifest: Partial<Manifest>): Promise<string>
  /** Ends the pool and opens another one over the same state. */
  reopen(): Promise<void>
  close(): Promise<void>
}

export async function openWorld(): Promise<World> {
  const config = readConfig()
  const open = () => openPool({ ...config, slots: 16 })
  const store = openStore(config.home)
  const world: World = { pool: await open(), withFunction, deploy, reopen, close }
  const image = await buildGuestImage(store)
  let deployed = 0

  async function deploy(manifest: Partial<Manifest>): Promise<string> {
    const contract = manifest.contract ?? 'link'
    const name = `guest-${deployed++}`
    const command = ['/limits', contract]
    const whole = { name, image: image.digest, contract, command, pool: { min: 1, max: 4 }, ...manifest }
    const spec = resolveFunction(parseManifest(whole), image)
    for (const layer of spec.layers) await world.pool.unpackLayer(layer, store.blobPath(layer))
    await world.pool.deploy(spec)
    return name
  }

  async function withFunction(manifest: Partial<Manifest>, body: (call: Call) => Promise<void>): Promise<void> {
    const name = await deploy(manifest)
    try {
      await body((payload, options) => world.pool.invoke(name, Buffer.from(payload), options))
    } finally {
      await world.pool.remove(name)
    }
  }

  async function reopen(): Promise<void> {
    await world.pool.close()
    world.pool = await open()
  }

  async function close(): Promise<void> {
    await world.pool.close()
  }

  return world
}

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

export function processes(): Process[] {
  const pids = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))
  return pids.flatMap((pid) => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      const uids = (/^Uid:\t(.*)$/m.exec(status)?.[1] ?? '').split('\t').map(Number)
      return [{ pid: Number(pid), name: /^Name:\t(.*)$/m.exec(status)?.[1] ?? '', uids }]
    } catch {
      // It ended while we looked.
      return []
    }
  })
}
