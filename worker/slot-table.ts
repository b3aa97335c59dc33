// Who has which slot: hands cold slots to functions that are short of sandboxes, hears what became of them, and takes
// idle ones back when somebody needs them more.
import { PlatformError } from '../contract/errors.ts'
import type { FunctionSpec } from '../contract/function.ts'
import type { Start } from '../contract/invocation.ts'
import type { CoreEvent, Next } from '../native/index.ts'
import { ColdSlots } from './cold-slots.ts'
import { describeFailure } from './failure.ts'
import { FunctionPool } from './function-pool.ts'
import type { House } from './house.ts'
import { Tidying } from './tidying.ts'

export interface SandboxInfo {
  readonly id: string
  readonly function: string
  /** The slot's state: warming, ready, leased, resetting, poisoned or retired. */
  readonly state: string
  /** The function's process as the host numbers it; 0 while it is being built. */
  readonly hostPid: number
  readonly ageMs: number
}

interface Occupant {
  readonly entry: FunctionPool
  readonly generation: number
  readonly since: number
  hostPid: number
  isUsed: boolean
  isResetting: boolean
}

/** Builds under way at once over all functions; a call that waits may go beyond. More only makes each later. */
const WARMING_PER_CPU = 2

export class SlotTable {
  readonly #house: House
  readonly #occupants: (Occupant | undefined)[]
  readonly #cold: ColdSlots
  readonly #entries = new Map<number, FunctionPool>()
  readonly #deploying = new Map<FunctionPool, { resolve: () => void; reject: (error: PlatformError) => void }>()
  readonly #defining = new Map<number, (errno: number) => void>()
  #nextId = 1
  #warming = 0
  readonly #tidying = new Tidying(() => this.#tidy())
  #onAllCold: (() => void) | undefined

  constructor(house: House) {
    this.#house = house
    this.#occupants = new Array(house.report.slots)
    this.#cold = new ColdSlots(house.report.slots)
  }

  /** A new version of a function, once its first sandboxes are ready. */
  async define(spec: FunctionSpec): Promise<FunctionPool> {
    const entry = new FunctionPool(this.#nextId++, spec)
    const errno = await new Promise<number>((resolve) => {
      this.#defining.set(entry.id, resolve)
      this.#house.define(entry.id, spec)
    })
    if (errno !== 0) throw new PlatformError('SETUP_FAILED', `${spec.name}: sandboxd refused it (errno ${errno})`)
    this.#entries.set(entry.id, entry)
    try {
      await new Promise<void>((resolve, reject) => {
        this.#deploying.set(entry, { resolve, reject })
        // One even where none is to be kept: a program that cannot start is found out now.
        if (spec.pool.min === 0) this.#build(entry)
        this.refill(entry)
      })
    } catch (error) {
      this.retire(entry)
      throw error
    } finally {
      this.#deploying.delete(entry)
    }
    return entry
  }

  /** Builds no more of it and destroys what waits; its last sandbox takes the rest with it. */
  retire(entry: FunctionPool): void {
    entry.isRetired = true
    entry.refuseAll(new PlatformError('FUNCTION_NOT_FOUND', `${entry.spec.name} was removed`))
    for (const slot of entry.ready.splice(0)) this.#house.core.retire(slot)
    for (const [slot, occupant] of this.#occupants.entries()) {
      if (occupant?.entry !== entry || this.#house.core.state(slot) !== 'warming') continue
      this.#house.core.retire(slot)
      this.#warming -= 1
      entry.warming -= 1
    }
    this.#forgetIfGone(entry)
  }

  lease(slot: number, entry: FunctionPool, isCold: boolean): Start {
    entry.leased += 1
    const occupant = this.#occupants[slot]
    const start = occupant?.isUsed ? 'reused' : isCold ? 'cold' : 'pooled'
    if (occupant !== undefined) occupant.isUsed = true
    return start
  }

  /** After an answer: what it takes to serve the next one is done now only if that is urgent. */
  unlease(slot: number, entry: FunctionPool, next: Next): void {
    entry.leased -= 1
    const occupant = this.#occupants[slot]
    if (next === 'serves_on') this.#offer(slot, entry.id)
    else if (next === 'ended' || occupant === undefined) this.#tidying.used(entry.isShort)
    else {
      // An `again` tells when it was made fit for the next call.
      occupant.isResetting = true
      entry.resetting += 1
    }
  }

  refill(entry: FunctionPool): void {
    if (this.#tidying.isStopped) return
    for (let wanted = entry.wanted; wanted > 0; wanted -= 1) {
      const isCapped = this.#warming >= WARMING_PER_CPU * this.#house.cpus
      if (isCapped && !entry.isWaitedFor) return
      if (!this.#build(entry)) return
    }
  }

  handle(event: CoreEvent): void {
    switch (event.kind) {
      case 'ready':
        return this.#ready(event)
      case 'again':
        return this.#offer(event.slot, event.function)
      case 'failed':
        this.#warming -= 1
        return this.#failed(event.function, describeFailure(event.failure))
      case 'broken':
        return this.#broken(event.slot, event.function, event.what)
      case 'gone':
        return this.#gone(event.slot)
      case 'defined':
        this.#defining.get(event.function)?.(event.errno)
        this.#defining.delete(event.function)
    }
  }

  id(slot: number): string {
    return `${this.#house.report.instance}-${slot}-${this.generation(slot)}`
  }

  generation(slot: number): number {
    return this.#occupants[slot]?.generation ?? 0
  }

  counts(): { total: number; cold: number } {
    return { total: this.#occupants.length, cold: this.#cold.count }
  }

  list(): SandboxInfo[] {
    return this.#occupants.flatMap((occupant, slot) => {
      if (occupant === undefined) return []
      const { entry, since, hostPid } = occupant
      const state = this.#house.core.state(slot)
      return [
        { id: this.id(slot), function: entry.spec.name, state, hostPid, ageMs: Math.round(performance.now() - since) },
      ]
    })
  }

  /** When every slot is cold. */
  allCold(): Promise<void> {
    this.#tidying.soon()
    return new Promise((resolve) => {
      this.#onAllCold = resolve
      this.#checkAllCold()
    })
  }

  /** Nothing is built or destroyed any more. */
  stop(): void {
    this.#tidying.stop()
  }

  lost(error: PlatformError): void {
    this.stop()
    for (const { reject } of this.#deploying.values()) reject(error)
    this.#checkAllCold()
  }

  #build(entry: FunctionPool): boolean {
    const slot = this.#cold.take(entry.id)
    if (slot === undefined) {
      if (entry.isWaitedFor) this.#evictFor(entry)
      return false
    }
    entry.warming += 1
    this.#warming += 1
    const generation = this.#house.core.build(slot, entry.id, entry.isWaitedFor)
    this.#occupants[slot] = {
      entry,
      generation,
      since: performance.now(),
      hostPid: 0,
      isUsed: false,
      isResetting: false,
    }
    return true
  }

  /** Somebody waits and no slot is cold: the function with the most idle sandboxes gives one. */
  #evictFor(waiting: FunctionPool): void {
    let richest: FunctionPool | undefined
    for (const entry of this.#entries.values()) {
      if (entry !== waiting && entry.ready.length > (richest?.ready.length ?? 0)) richest = entry
    }
    const slot = richest?.ready.shift()
    if (slot !== undefined) this.#house.core.retire(slot)
  }

  #ready(event: Extract<CoreEvent, { kind: 'ready' }>): void {
    const occupant = this.#occupants[event.slot]
    if (occupant === undefined) return
    const { entry } = occupant
    this.#warming -= 1
    entry.warming -= 1
    occupant.hostPid = event.pid
    entry.breaker.succeed()
    this.#offer(event.slot, event.function)
    if (entry.ready.length >= entry.spec.pool.min || entry.spec.pool.min === 0) this.#deploying.get(entry)?.resolve()
    this.#tidying.soon()
  }

  #endReset(occupant: Occupant | undefined): void {
    if (!occupant?.isResetting) return
    occupant.isResetting = false
    occupant.entry.resetting -= 1
  }

  #offer(slot: number, id: number): void {
    this.#endReset(this.#occupants[slot])
    const entry = this.#entries.get(id)
    if (entry === undefined || entry.isRetired) this.#house.core.retire(slot)
    else entry.offer(slot)
  }

  #failed(id: number, why: string): void {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    entry.warming -= 1
    this.#breakDown(entry, why)
  }

  /** A sandbox that waited is no good any more. */
  #broken(slot: number, id: number, what: string): void {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    entry.withdraw(slot)
    this.#breakDown(entry, what)
  }

  #breakDown(entry: FunctionPool, why: string): void {
    entry.breaker.fail(why)
    this.#house.log({ level: 'warn', function: entry.spec.name, msg: `no sandbox: ${why}` })
    const error = new PlatformError('START_FAILED', `${entry.spec.name}: ${why}`)
    this.#deploying.get(entry)?.reject(error)
    const { pauseMs } = entry.breaker
    if (pauseMs === 0) return this.#tidying.soon()
    entry.refuseAll(error)
    // One more try when the pause is over; an idle pool would otherwise never find out that the trouble passed.
    setTimeout(() => this.refill(entry), pauseMs + 1).unref()
  }

  #gone(slot: number): void {
    const occupant = this.#occupants[slot]
    this.#endReset(occupant)
    this.#occupants[slot] = undefined
    this.#cold.giveBack(slot)
    if (occupant !== undefined) this.#forgetIfGone(occupant.entry)
    this.#tidying.soon()
    this.#checkAllCold()
  }

  #forgetIfGone(entry: FunctionPool): void {
    if (!entry.isRetired || !this.#entries.has(entry.id)) return
    if (this.#occupants.some((occupant) => occupant?.entry === entry)) return
    this.#entries.delete(entry.id)
    this.#house.core.undefine(entry.id)
  }

  #tidy(): void {
    this.#house.core.flush()
    const entries = [...this.#entries.values()]
    for (const entry of entries.filter((one) => one.isWaitedFor)) this.refill(entry)
    for (const entry of entries) this.refill(entry)
  }

  #checkAllCold(): void {
    if (this.#tidying.isStopped || this.#cold.count >= this.#occupants.length) this.#onAllCold?.()
  }
}
