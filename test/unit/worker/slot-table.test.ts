// Random lives of a small pool against a model of what a slot may be: no slot is handed out twice, none is lost, no
// function has more than it may, and nobody who waits waits for nothing.
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import type { FunctionSpec } from '../../../contract/function.ts'
import { DEFAULT_LIMITS } from '../../../contract/limits.ts'
import type { Core } from '../../../native/index.ts'
import type { FunctionPool } from '../../../worker/function-pool.ts'
import type { House } from '../../../worker/house.ts'
import { SlotTable } from '../../../worker/slot-table.ts'

const SLOTS = 12
const STEPS = 2_000

type State = 'cold' | 'warming' | 'ready' | 'leased' | 'dying'

/** A core whose sandboxes come and go when the test says so, and that knows what may be asked of a slot. */
class ModelCore implements Core {
  readonly states: State[] = new Array(SLOTS).fill('cold')
  readonly functionOf: number[] = new Array(SLOTS).fill(0)
  readonly undefined: number[] = []
  #generation = 0
  defined: (id: number) => void = () => {};

  in(...states: State[]): number[] {
    return this.states.flatMap((state, slot) => (states.includes(state) ? [slot] : []))
  }
  move(slot: number, from: State[], to: State): void {
    expect(from, `slot ${slot} to ${to}`).toContain(this.states[slot])
    this.states[slot] = to
  }
  define(id: number): void {
    setImmediate(() => this.defined(id))
  }
  undefine(id: number): void {
    expect(this.functionOf.some((of, slot) => of === id && this.states[slot] !== 'cold')).toBe(false)
    this.undefined.push(id)
  }
  build(slot: number, id: number): number {
    this.move(slot, ['cold'], 'warming')
    this.functionOf[slot] = id
    return ++this.#generation
  }
  retire(slot: number): void {
    this.move(slot, ['warming', 'ready'], 'dying')
  }
  state(slot: number): string {
    return this.states[slot] === 'dying' ? 'poisoned' : (this.states[slot] ?? '')
  }
  call(): void {}
  flush(): void {}
  close(): void {}
  unpack(): void {}
  stages = () => ''
  cancel = () => true
}

/** One table over one model, and who holds what. */
class Life {
  readonly core = new ModelCore()
  readonly table: SlotTable
  readonly held = new Map<number, FunctionPool>()
  readonly random: () => number
  pools: FunctionPool[] = []
  waiting = 0

  constructor(seed: number) {
    const { core } = this
    const define = core.define.bind(core)
    const house = { core, cpus: 2, report: { instance: 'model', slots: SLOTS }, log: () => {}, define }
    this.table = new SlotTable(house as unknown as House)
    core.defined = (id) => this.table.handle({ kind: 'defined', function: id, errno: 0 })
    this.random = generator(seed)
  }

  pick<T>(among: readonly T[]): T | undefined {
    return among[Math.floor(this.random() * among.length)]
  }

  step(): void {
    const dice = this.random()
    const pool = this.pick(this.pools)
    if (dice < 0.35 && pool) this.ask(pool)
    else if (dice < 0.6) this.act(this.core.in('warming'), this.comeUp)
    else if (dice < 0.8) this.act([...this.held.keys()], this.answer)
    else this.act(this.core.in('dying'), this.bury)
  }

  act(slots: readonly number[], does: (slot: number) => void): void {
    const slot = this.pick(slots)
    if (slot !== undefined) does(slot)
  }

  ask(pool: FunctionPool): void {
    const slot = pool.ready.pop()
    if (slot !== undefined) return this.lease(slot, pool)
    this.waiting += 1
    const take = (one: number) => {
      this.waiting -= 1
      this.lease(one, pool)
    }
    const refuse = () => {
      this.waiting -= 1
    }
    pool.wait({ take, refuse })
    this.table.refill(pool)
  }

  lease(slot: number, pool: FunctionPool): void {
    expect(this.held.has(slot), `slot ${slot} is leased twice`).toBe(false)
    this.core.move(slot, ['ready'], 'leased')
    this.table.lease(slot, pool, false)
    this.held.set(slot, pool)
  }

  answer = (slot: number): void => {
    const pool = this.held.get(slot)
    this.held.delete(slot)
    this.core.move(slot, ['leased'], 'dying')
    if (pool) this.table.unlease(slot, pool, 'ended')
  }

  comeUp = (slot: number): void => {
    this.core.move(slot, ['warming'], 'ready')
    const id = this.core.functionOf[slot] ?? 0
    this.table.handle({ kind: 'ready', slot, function: id, pid: 1, isQuietGuess: false })
  }

  bury = (slot: number): void => {
    this.core.move(slot, ['dying'], 'cold')
    this.table.handle({ kind: 'gone', slot })
  }

  check(): void {
    for (const pool of this.pools) {
      expect(pool.alive).toBeLessThanOrEqual(pool.spec.pool.max)
      expect(pool.ready.every((slot) => this.core.states[slot] === 'ready')).toBe(true)
    }
  }

  /** Nobody asks any more, and everything else goes on. */
  async comeToRest(): Promise<void> {
    for (let round = 0; round < 200; round++) {
      this.core.in('warming').forEach(this.comeUp)
      ;[...this.held.keys()].forEach(this.answer)
      this.core.in('dying').forEach(this.bury)
      await delay(3)
      if (this.waiting === 0 && this.core.in('cold', 'ready').length === SLOTS) return
    }
  }
}

describe('slots', () => {
  for (const seed of [1, 7, 42, Date.now() % 1_000_000]) {
    it(`keep their promises over ${STEPS} random steps (seed ${seed})`, async () => {
      const life = new Life(seed)
      const { table, core } = life
      life.pools = await deployAll(life)
      for (let step = 0; step < STEPS; step++) {
        life.step()
        if (step % 7 === 0) await turn()
        life.check()
      }
      await life.comeToRest()
      expect(life.waiting).toBe(0)
      for (const { ready, spec } of life.pools) expect(ready.length).toBeGreaterThanOrEqual(spec.pool.min)
      for (const pool of life.pools) table.retire(pool)
      core.in('dying').forEach(life.bury)
      await table.allCold()
      table.stop()
      expect(core.undefined.toSorted()).toEqual(life.pools.map(({ id }) => id).toSorted())
    })
  }
})

async function deployAll({ table, core, comeUp }: Life): Promise<FunctionPool[]> {
  const limits = DEFAULT_LIMITS
  const spec = (name: string, min: number, max: number) => ({ name, limits, pool: { min, max }, reuse: 'never' })
  const specs = [spec('a', 2, 4), spec('b', 1, 12), spec('c', 0, 3)] as unknown as FunctionSpec[]
  const deployed = Promise.all(specs.map((one) => table.define(one)))
  let isDone = false
  void deployed.then(() => {
    isDone = true
  })
  while (!isDone) {
    await turn()
    core.in('warming').forEach(comeUp)
  }
  return await deployed
}

/** mulberry32: the same numbers in [0, 1) for the same seed. */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b_79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
