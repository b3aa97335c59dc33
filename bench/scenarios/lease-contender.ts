// Who takes part in a comparison of calls, and how turns are taken: one contender at a time, when all are at rest, each
// in the same run and in another order the next time.
import { setTimeout as delay } from 'node:timers/promises'
import { createPayloads } from '../bed.ts'
import { Latency, lower, MachineTime } from '../measure.ts'
import type { Context, Row } from '../scenario.ts'

export abstract class Contender {
  readonly name: string
  readonly isolated: string
  readonly fresh: string
  readonly latency = new Latency()
  /** Of its turns, until it is at rest again. */
  readonly machine = new MachineTime()
  calls = 0

  constructor({ name, isolated, fresh }: About) {
    this.name = name
    this.isolated = isolated
    this.fresh = fresh
  }

  /** One call, its answer checked: how many milliseconds it took. */
  abstract call(payload: Buffer): Promise<number>
  /** Resolves when it is ready for a turn and nothing of its last one is left to be done. */
  abstract rest(): Promise<void>

  get row(): Row {
    const { name, isolated, fresh, latency } = this
    return { name, isolated, fresh, latency }
  }

  /** With the time of all processors per call, in which its refill and its tear-down are. */
  get rowWithCpu(): Row {
    return { ...this.row, figures: { 'CPU per call': lower(this.machine.busyUs / Math.max(1, this.calls), 'µs') } }
  }
}

export type About = Required<Pick<Row, 'name' | 'isolated' | 'fresh'>>

export interface Turns {
  /** For the progress. */
  readonly what: string
  readonly rounds: number
  readonly warmUpRounds: number
  /** For the last of the dead, once all are at rest: nothing that is measured waits for it. */
  readonly restMs?: number
}

const REST_MS = 30

export async function takeTurns<C extends Contender>(
  contenders: readonly C[],
  { progress }: Context,
  { what, rounds, warmUpRounds, restMs = REST_MS }: Turns,
  turn: (contender: C, isTimed: boolean) => Promise<void>,
): Promise<void> {
  const total = warmUpRounds + rounds
  await restAll(contenders, restMs)
  for (let round = 0; round < total; round++) {
    // Whoever goes second in one round goes first in the next.
    const order = round % 2 === 0 ? contenders : contenders.toReversed()
    for (const contender of order) {
      const isTimed = round >= warmUpRounds
      if (isTimed) contender.machine.start()
      await turn(contender, isTimed)
      await contender.rest()
      if (isTimed) contender.machine.stop()
      await restAll(contenders, restMs)
    }
    progress(what, round + 1, total)
  }
}

async function restAll(contenders: readonly Contender[], restMs: number): Promise<void> {
  await Promise.all(contenders.map((contender) => contender.rest()))
  if (restMs > 0) await delay(restMs)
}

export interface Burst {
  readonly calls: number
  /** The first calls after a rest wake processors and caches, on all sides: not counted. */
  readonly lead: number
  /** Between an answer and the next call. */
  readonly pauseMs?: number
  readonly isTimed: boolean
}

/** Closed loop: the next call when the answer is there. */
export async function burst(contender: Contender, { calls, lead, pauseMs, isTimed }: Burst): Promise<void> {
  const nextPayload = createPayloads()
  for (let call = 0; call < calls; call++) {
    if (pauseMs !== undefined) await delay(pauseMs)
    const ms = await contender.call(nextPayload())
    if (isTimed && call >= lead) contender.latency.recordMs(ms)
  }
  if (isTimed) contender.calls += calls
}
