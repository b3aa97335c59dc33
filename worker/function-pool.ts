// One deployed version of a function: its ready slots, who waits for one, and how many are in the making. Derived from
// the slots' states, which the addon keeps; decides how many to build and never builds itself.
import { PlatformError } from '../contract/errors.ts'
import type { FunctionSpec } from '../contract/function.ts'
import { Breaker } from './breaker.ts'

export interface Waiter {
  readonly take: (slot: number) => void
  readonly refuse: (error: PlatformError) => void
}

/** Calls waiting for a sandbox of one function; more is a sign that no wait will help. */
const WAITERS_MAX = 1000

export class FunctionPool {
  readonly id: number
  readonly spec: FunctionSpec
  readonly breaker = new Breaker()
  /** The most recently built last: it is the likeliest to be in the caches. */
  readonly ready: number[] = []
  readonly #waiters = new Set<Waiter>()
  warming = 0
  leased = 0
  /** Answered, and being made fit for the next call (`reuse: function`). */
  resetting = 0
  /** Calls that found none ready, since the function was deployed. */
  misses = 0
  /** A newer version, or nothing, has taken its place: no more is built, and what is left goes. */
  isRetired = false

  constructor(id: number, spec: FunctionSpec) {
    this.id = id
    this.spec = spec
  }

  get alive(): number {
    return this.ready.length + this.warming + this.leased + this.resetting
  }

  /** How many sandboxes to start now: the shortage, once, however many calls found it. */
  get wanted(): number {
    if (this.isRetired || this.breaker.reason !== undefined) return 0
    const coming = this.ready.length + this.warming + this.resetting
    const shortage = this.spec.pool.min + this.#waiters.size - coming
    const room = this.spec.pool.max - this.alive
    const most = this.breaker.isDoubtful ? Math.min(1, 1 - this.warming) : shortage
    return Math.max(0, Math.min(shortage, room, most))
  }

  /** Somebody waits, or half of what is kept ready is gone. */
  get isShort(): boolean {
    return this.#waiters.size > 0 || this.ready.length * 2 < this.spec.pool.min
  }

  get isWaitedFor(): boolean {
    return this.#waiters.size > 0
  }

  wait(waiter: Waiter): void {
    const broken = this.breaker.reason
    if (broken !== undefined) throw new PlatformError('START_FAILED', `${this.spec.name}: ${broken}`)
    if (this.#waiters.size >= WAITERS_MAX) {
      throw new PlatformError('NO_CAPACITY', `${this.spec.name}: ${WAITERS_MAX} calls wait for a sandbox already`)
    }
    this.misses += 1
    this.#waiters.add(waiter)
  }

  forget(waiter: Waiter): void {
    this.#waiters.delete(waiter)
  }

  /** A slot became ready: for the call that waits longest, or for the next one. */
  offer(slot: number): void {
    const [first] = this.#waiters
    if (first === undefined) {
      this.ready.push(slot)
      return
    }
    this.#waiters.delete(first)
    first.take(slot)
  }

  /** True when it was there. */
  withdraw(slot: number): boolean {
    const index = this.ready.indexOf(slot)
    if (index >= 0) this.ready.splice(index, 1)
    return index >= 0
  }

  /** Nobody waits for what will not come. */
  refuseAll(error: PlatformError): void {
    for (const waiter of this.#waiters) waiter.refuse(error)
    this.#waiters.clear()
  }
}
