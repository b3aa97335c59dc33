// The pool of a worker: which function has which slot, and when to build. The hot path is `invoke` when a slot is
// ready: pop, call, and one promise; everything else happens before or after.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { PlatformError } from '../contract/errors.ts'
import type { FunctionSpec } from '../contract/function.ts'
import type { Invocation, InvokeOptions, Start } from '../contract/invocation.ts'
import { type Limits, PAYLOAD_BYTES_MAX } from '../contract/limits.ts'
import type { Evidence, Next } from '../native/index.ts'
import type { FunctionPool } from './function-pool.ts'
import { type HouseOptions, type HouseReport, openHouse } from './house.ts'
import { inspectProcess, type SandboxReport } from './inspect.ts'
import { lowerLimits, nativeLimits } from './limits.ts'
import { outcomeOf } from './outcome.ts'
import { type SandboxInfo, SlotTable } from './slot-table.ts'
import { waitForSlot } from './waiting.ts'

export type PoolOptions = HouseOptions

export interface PoolStats {
  readonly instance: string
  readonly slots: { readonly total: number; readonly cold: number }
  readonly functions: readonly {
    readonly name: string
    readonly ready: number
    readonly leased: number
    readonly warming: number
    /** Calls that found no sandbox ready. */
    readonly cold: number
    /** Why no sandbox is built, where the breaker is open. */
    readonly breaker: string | null
  }[]
}

export interface Pool {
  /** Resolves when the function's `pool.min` sandboxes are ready; START_FAILED says why there is none. */
  deploy(spec: FunctionSpec): Promise<void>
  /** Running calls end as they would. */
  remove(name: string): Promise<void>
  invoke(name: string, payload: Uint8Array, options?: InvokeOptions): Promise<Invocation>
  /** Makes the layer of this diff_id (`sha256:…`) there for sandboxes; does nothing when it is. */
  unpackLayer(diffId: string, tarPath: string): Promise<void>
  functions(): readonly string[]
  stats(): PoolStats
  sandboxes(): readonly SandboxInfo[]
  inspect(id: string): Promise<SandboxReport>
  readonly host: HouseReport
  /** No new calls; waits for the running ones, and cancels what runs longer than `deadlineMs`. */
  drain(deadlineMs: number): Promise<void>
  close(): Promise<void>
  /** Resolves with why the pool can serve no more, or with nothing after `close`. */
  readonly closed: Promise<PlatformError | undefined>
}

/** Starts sandboxd and resolves when it can build. HOST_UNFIT, HOME_BUSY or SETUP_FAILED say why it cannot. */
export async function openPool(options: PoolOptions = {}): Promise<Pool> {
  const pool = new WorkerPool()
  await pool.open(options)
  return pool
}

class WorkerPool implements Pool {
  readonly #byName = new Map<string, FunctionPool>()
  readonly #running = new Map<number, Running>()
  #house!: Awaited<ReturnType<typeof openHouse>>
  #slots!: SlotTable
  #isDraining = false
  #onIdle: (() => void) | undefined

  async open(options: PoolOptions): Promise<void> {
    this.#house = await openHouse(options, {
      onDone: (slot, evidence, next) => this.#done(slot, evidence, next),
      onEvent: (event) => this.#slots.handle(event),
      onLost: (error) => this.#lost(error),
    })
    this.#slots = new SlotTable(this.#house)
  }

  get host(): HouseReport {
    return this.#house.report
  }

  get closed(): Promise<PlatformError | undefined> {
    return this.#house.closed
  }

  async deploy(spec: FunctionSpec): Promise<void> {
    this.#refuseWhenClosing()
    if (spec.layers.length === 0) throw new PlatformError('INVALID_IMAGE', `${spec.name}: the image is empty`)
    const entry = await this.#slots.define(spec)
    const earlier = this.#byName.get(spec.name)
    this.#byName.set(spec.name, entry)
    if (earlier !== undefined) this.#slots.retire(earlier)
  }

  async remove(name: string): Promise<void> {
    const entry = this.#entry(name)
    this.#byName.delete(name)
    this.#slots.retire(entry)
  }

  invoke(name: string, payload: Uint8Array, options?: InvokeOptions): Promise<Invocation> {
    const askedAt = performance.now()
    return new Promise((resolve, reject) => {
      this.#refuseWhenClosing()
      const entry = this.#entry(name)
      if (payload.length > PAYLOAD_BYTES_MAX) {
        throw new PlatformError(
          'PAYLOAD_TOO_LARGE',
          `a payload is at most ${PAYLOAD_BYTES_MAX} bytes, not ${payload.length}`,
        )
      }
      const limits = options?.limits === undefined ? entry.spec.limits : lowerLimits(entry.spec.limits, options.limits)
      const lease = (slot: number, isCold: boolean) => {
        this.#call(slot, payload, { entry, limits, isCold, askedAt, resolve, reject, signal: options?.signal })
      }
      if (options?.signal?.aborted) return resolve(cancelledBeforeStart(askedAt))
      const slot = entry.ready.pop()
      if (slot !== undefined) return lease(slot, false)
      const onCancel = () => resolve(cancelledBeforeStart(askedAt))
      waitForSlot(entry, { lease, reject, onCancel, signal: options?.signal })
      // At once, beside whatever the refiller does.
      this.#slots.refill(entry)
    })
  }

  async unpackLayer(diffId: string, tarPath: string): Promise<void> {
    const digest = /^sha256:([0-9a-f]{64})$/.exec(diffId)?.[1]
    if (digest === undefined) throw new PlatformError('INVALID_IMAGE', `${diffId} is no digest of a layer`)
    if (existsSync(join(this.#house.home, 'layers', digest))) return
    await this.#house.unpack(digest, tarPath)
  }

  functions(): readonly string[] {
    return [...this.#byName.keys()]
  }

  stats(): PoolStats {
    const functions = [...this.#byName.values()].map((entry) => ({
      name: entry.spec.name,
      ready: entry.ready.length,
      leased: entry.leased,
      warming: entry.warming,
      cold: entry.misses,
      breaker: entry.breaker.reason ?? null,
    }))
    return { instance: this.#house.report.instance, slots: this.#slots.counts(), functions }
  }

  sandboxes(): readonly SandboxInfo[] {
    return this.#slots.list()
  }

  inspect(id: string): Promise<SandboxReport> {
    const found = this.#slots.list().find((sandbox) => sandbox.id === id)
    if (found === undefined) throw new PlatformError('SANDBOX_NOT_FOUND', `no sandbox ${JSON.stringify(id)}`)
    return inspectProcess(found)
  }

  async drain(deadlineMs: number): Promise<void> {
    this.#isDraining = true
    const error = new PlatformError('DRAINING', 'this worker takes no more calls')
    for (const entry of this.#byName.values()) entry.refuseAll(error)
    const idle = this.#idle()
    const timer = setTimeout(() => this.#cancelAll(), deadlineMs)
    await Promise.race([idle, this.closed])
    clearTimeout(timer)
  }

  async close(): Promise<void> {
    await this.drain(0)
    for (const entry of this.#byName.values()) this.#slots.retire(entry)
    this.#byName.clear()
    await this.#slots.allCold()
    this.#slots.stop()
    await this.#house.close()
  }

  /** On the hot path. */
  #call(slot: number, payload: Uint8Array, request: Request): void {
    const { entry, limits, isCold, askedAt, resolve, reject, signal } = request
    const acquiredAt = performance.now()
    try {
      const start = this.#slots.lease(slot, entry, isCold)
      const own = limits === entry.spec.limits ? undefined : nativeLimits(limits)
      // A program that is still starting would be moved while it runs.
      const isAlone = !isCold && this.#running.size === 0
      this.#house.core.call(slot, payload, isAlone, own)
      const forget = signal === undefined ? undefined : this.#cancelOn(signal, slot)
      const sentAt = performance.now()
      this.#running.set(slot, { entry, limits, start, askedAt, acquiredAt, sentAt, resolve, reject, forget })
    } catch (cause) {
      this.#slots.unlease(slot, entry, 'ended')
      reject(new PlatformError('SETUP_FAILED', 'the sandbox could not be called', { cause }))
    }
  }

  #cancelOn(signal: AbortSignal, slot: number): () => void {
    const generation = this.#slots.generation(slot)
    const cancel = () => this.#house.core.cancel(slot, generation)
    signal.addEventListener('abort', cancel, { once: true })
    return () => signal.removeEventListener('abort', cancel)
  }

  /** The answer, or what is known instead. */
  #done(slot: number, evidence: Evidence, next: Next): void {
    const running = this.#running.get(slot)
    if (running === undefined) return
    const doneAt = performance.now()
    this.#running.delete(slot)
    running.forget?.()
    const { askedAt, acquiredAt, sentAt, start, limits } = running
    const stages = {
      acquireNs: nanoseconds(acquiredAt - askedAt),
      sendNs: nanoseconds(sentAt - acquiredAt),
      runNs: nanoseconds(doneAt - sentAt),
    }
    try {
      const outcome = outcomeOf(evidence, limits, nanoseconds(doneAt - acquiredAt))
      running.resolve({ outcome, start, sandbox: this.#slots.id(slot), stages })
    } catch (error) {
      running.reject(error)
    }
    this.#slots.unlease(slot, running.entry, next)
    if (this.#running.size === 0) this.#onIdle?.()
  }

  #entry(name: string): FunctionPool {
    const entry = this.#byName.get(name)
    if (entry === undefined)
      throw new PlatformError('FUNCTION_NOT_FOUND', `no function ${JSON.stringify(name.slice(0, 80))}`)
    return entry
  }

  #refuseWhenClosing(): void {
    if (this.#isDraining) throw new PlatformError('DRAINING', 'this worker takes no more calls')
  }

  #idle(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.#onIdle = resolve
    })
  }

  #cancelAll(): void {
    for (const slot of this.#running.keys()) this.#house.core.cancel(slot, this.#slots.generation(slot))
  }

  #lost(error: PlatformError): void {
    this.#isDraining = true
    for (const { reject } of this.#running.values()) reject(error)
    this.#running.clear()
    for (const entry of this.#byName.values()) entry.refuseAll(error)
    this.#slots?.lost(error)
    this.#onIdle?.()
  }
}

/** What one running call needs to be answered. */
type Running = Pick<Request, 'entry' | 'limits' | 'askedAt' | 'resolve' | 'reject'> & {
  readonly start: Start
  readonly acquiredAt: number
  readonly sentAt: number
  readonly forget: (() => void) | undefined
}

interface Request {
  readonly entry: FunctionPool
  readonly limits: Limits
  readonly isCold: boolean
  readonly askedAt: number
  readonly resolve: (invocation: Invocation) => void
  readonly reject: (error: unknown) => void
  readonly signal: AbortSignal | undefined
}

function nanoseconds(ms: number): number {
  return Math.round(ms * 1e6)
}

function cancelledBeforeStart(askedAt: number): Invocation {
  const usage = { wallNs: 0, cpuNs: 0, memoryPeakBytes: 0, throttledCount: 0, pidsDeniedCount: 0, oomKillCount: 0 }
  return {
    outcome: { status: 'cancelled', usage, logs: new Uint8Array(), logsTruncated: false },
    start: 'cold',
    sandbox: '',
    stages: { acquireNs: nanoseconds(performance.now() - askedAt), sendNs: 0, runNs: 0 },
  }
}
