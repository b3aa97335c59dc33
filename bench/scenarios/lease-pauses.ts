// Fresh `link` calls that do not follow one another at once: a pause before each, and arrivals at a fixed rate, in which
// refill and tear-down fall between calls and beside them.
import { setTimeout as delay, setImmediate as turnOfLoop } from 'node:timers/promises'
import { createPayloads } from '../bed.ts'
import { lower } from '../measure.ts'
import { atMost, type Context, type Section } from '../scenario.ts'
import { burst, takeTurns } from './lease-contender.ts'
import { freshPlan, over, plainPlan } from './lease-link.ts'
import { openPools, type PooledContender } from './lease-pools.ts'

const PAUSE_MS = 1
const PACED_FULL = { ready: 100, calls: 48, rounds: 25, warmUpRounds: 2 }
const PACED_QUICK = { ready: 12, calls: 5, rounds: 2, warmUpRounds: 1 }

export async function paced(context: Context): Promise<Section> {
  const sizes = context.isQuick ? PACED_QUICK : PACED_FULL
  const { ready, calls, rounds } = sizes
  const { contenders, close } = await openPools(context.bed, [freshPlan(ready), plainPlan(ready)])
  try {
    await takeTurns(contenders, context, { what: 'paced calls', ...sizes }, (contender, isTimed) =>
      burst(contender, { calls, lead: 1, pauseMs: PAUSE_MS, isTimed }),
    )
  } finally {
    await close()
  }
  const rows = contenders.map(({ row }) => row)
  return {
    id: 'lease.paced',
    title: `The same with a pause of ${PAUSE_MS} ms before each call`,
    method: `one call at a time; ${rounds} rounds of ${calls} calls a side in turns: processors fall asleep in between`,
    chart: 'latency',
    rows,
    ratios: [atMost('paced fresh call over a never-used plain child, p50', over(rows[0], rows[1], 'p50Us'))],
    notes: [],
  }
}

/** A rate that one processor's worth of refill can follow. */
const PER_SECOND = 200
const OPEN_FULL = { ready: 50, calls: 300, rounds: 4, warmUpRounds: 1 }
const OPEN_QUICK = { ready: 12, calls: 20, rounds: 1, warmUpRounds: 0 }

export async function open(context: Context): Promise<Section> {
  const sizes = context.isQuick ? OPEN_QUICK : OPEN_FULL
  const { ready, calls, rounds } = sizes
  const plans = [freshPlan(ready), plainPlan(ready)].map((plan) => ({ ...plan, start: 'fresh' }) as const)
  const { contenders, close } = await openPools(context.bed, plans)
  try {
    await takeTurns(contenders, context, { what: 'open loop', ...sizes }, (contender, isTimed) =>
      arrivals(contender, calls, isTimed),
    )
    const rows = contenders.map(({ row, misses }) => ({ ...row, figures: { misses: lower(misses) } }))
    return {
      id: 'lease.open',
      title: `Arrivals at a fixed rate of ${PER_SECOND} per second`,
      method:
        `a call every ${1000 / PER_SECOND} ms whether the ones before have ended or not; ${rounds} rounds of ${calls} ` +
        `calls a side in turns, ${ready} kept ready. Latency counts from the intended start, so that a stall is in ` +
        'every call that it delays; what was used is destroyed and built anew meanwhile',
      chart: 'latency',
      rows,
      ratios: [
        atMost('fresh call at a fixed rate over a never-used plain child, p99', over(rows[0], rows[1], 'p99Us')),
      ],
      notes: [],
    }
  } finally {
    await close()
  }
}

async function arrivals(contender: PooledContender, calls: number, isTimed: boolean): Promise<void> {
  const nextPayload = createPayloads()
  const running: Promise<void>[] = []
  const startedAt = performance.now() + 1
  for (let call = 0; call < calls; call++) {
    const due = startedAt + (call * 1000) / PER_SECOND
    await untilTime(due)
    const lateMs = performance.now() - due
    // A copy: the next one is made before this one is answered.
    const answered = contender.call(Buffer.from(nextPayload())).then((ms) => {
      if (isTimed) contender.latency.recordMs(lateMs + ms)
    })
    // One that fails is heard below, and not before.
    answered.catch(() => {})
    running.push(answered)
  }
  await Promise.all(running)
}

/** Node's timers count in whole milliseconds, which are longer than a call: the last one is turns of the event loop. */
async function untilTime(due: number): Promise<void> {
  const sleepMs = Math.floor(due - performance.now() - 1)
  if (sleepMs > 0) await delay(sleepMs)
  while (performance.now() < due) await turnOfLoop()
}
