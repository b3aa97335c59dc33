// How long a burst a pool serves before a call finds none ready: calls back to back use sandboxes up faster than they
// are made, so what is kept ready, and what is made meanwhile, is how long it lasts.
import type { Pool } from '../../worker/pool.ts'
import { closePools, createPayloads } from '../bed.ts'
import { higher, Latency } from '../measure.ts'
import { medianOf } from '../merge.ts'
import { untilFull } from '../rest.ts'
import type { Context, Section } from '../scenario.ts'

const FULL = { ready: [32, 64], rounds: 20 }
const QUICK = { ready: [8], rounds: 2 }
/** A pool that keeps up with one caller never misses; then this is what is said. */
const OVER_READY_MAX = 50

export async function withoutMiss(context: Context): Promise<Section> {
  const { ready, rounds } = context.isQuick ? QUICK : FULL
  const rows: Section['rows'][number][] = []
  for (const kept of ready) rows.push(await measure(context, kept, rounds))
  return {
    id: 'burst.ready',
    title: 'The longest burst served without a miss, by what the pool keeps ready',
    method:
      'link echo, 256 bytes, one call at a time, back to back, until one finds no sandbox ready; ' +
      `${rounds} bursts, each from a full pool at rest; how long the calls before the miss took`,
    chart: 'figures',
    rows,
    ratios: [],
    notes: [],
  }
}

async function measure({ bed, progress }: Context, ready: number, rounds: number): Promise<Section['rows'][number]> {
  const latency = new Latency()
  const lengths: number[] = []
  const pool = await bed.openPool(0, { slots: ready * 2 })
  try {
    await bed.deploy(pool, bed.spec({ name: 'echo', pool: { min: ready, max: ready * 2 } }))
    for (let round = 0; round < rounds; round++) {
      await untilFull([{ pool, ready }])
      lengths.push(await callUntilMiss(bed, pool, { most: ready * OVER_READY_MAX, latency }))
      progress(`bursts on ${ready} ready`, round + 1, rounds)
    }
  } finally {
    await closePools(pool)
  }
  const figures = { shortest: higher(Math.min(...lengths), 'calls'), median: higher(medianOf(lengths), 'calls') }
  return { name: `${ready} kept ready`, latency, figures }
}

async function callUntilMiss(
  bed: Context['bed'],
  pool: Pool,
  { most, latency }: { most: number; latency: Latency },
): Promise<number> {
  const nextPayload = createPayloads()
  for (let calls = 0; calls < most; calls++) {
    const payload = nextPayload()
    const askedAt = performance.now()
    const invocation = await pool.invoke('echo', payload)
    const ms = performance.now() - askedAt
    bed.check(invocation, payload, invocation.start)
    if (invocation.start === 'cold') return calls
    latency.recordMs(ms)
  }
  return most
}
