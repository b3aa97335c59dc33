// Whether a lease is slower in a pool of a thousand idle sandboxes than in one of ten: two pools, in turns.
import type { Pool } from '../../worker/pool.ts'
import { type Bed, closePools, createPayloads } from '../bed.ts'
import { Latency } from '../measure.ts'
import { type Kept, untilFull } from '../rest.ts'
import { atMost, type Context, type Section } from '../scenario.ts'

const P50_MAX = 1.1
/** As many as leave more than half of the small pool: below that it refills at once, beside the calls. */
const BURST = 5
/** The first calls after a rest wake processors and caches. */
const LEAD = 2
const REST_MS = 10
const FULL = { few: 10, many: 1000, rounds: 200, warmUpRounds: 10 }
const QUICK = { few: 10, many: 20, rounds: 3, warmUpRounds: 1 }

interface Contender extends Kept {
  readonly latency: Latency
}

export async function slowdown(context: Context): Promise<Section> {
  const { bed, isQuick } = context
  const sizes = isQuick ? QUICK : FULL
  const contenders: Contender[] = []
  try {
    for (const [number, ready] of [sizes.few, sizes.many].entries()) contenders.push(await open(bed, number, ready))
    const total = sizes.warmUpRounds + sizes.rounds
    for (let round = 0; round < total; round++) {
      for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
        await untilFull(contenders, REST_MS)
        await burst(bed, contender, round >= sizes.warmUpRounds)
      }
      context.progress('leases beside idle sandboxes', round + 1, total)
    }
  } finally {
    await closePools(...contenders.map(({ pool }) => pool))
  }
  return describe(contenders, sizes)
}

async function open(bed: Bed, number: number, ready: number): Promise<Contender> {
  // Room for those of a burst that are being destroyed while others take their place.
  const pool: Pool = await bed.openPool(number, { slots: ready + 2 * BURST })
  try {
    await bed.deploy(pool, bed.spec({ name: 'echo', pool: { min: ready, max: ready } }))
  } catch (error) {
    await closePools(pool)
    throw error
  }
  return { pool, ready, latency: new Latency() }
}

async function burst(bed: Bed, { pool, latency }: Contender, isTimed: boolean): Promise<void> {
  const nextPayload = createPayloads()
  for (let call = 0; call < BURST; call++) {
    const payload = nextPayload()
    const askedAt = performance.now()
    const invocation = await pool.invoke('echo', payload)
    const ms = performance.now() - askedAt
    bed.check(invocation, payload, 'pooled')
    if (isTimed && call >= LEAD) latency.recordMs(ms)
  }
}

function describe(contenders: readonly Contender[], { few, many, rounds }: typeof FULL): Section {
  const [small, large] = contenders
  const over = small && large && large.latency.p50Us / small.latency.p50Us
  return {
    id: 'memory.lease',
    title: 'A call to a ready sandbox, by how many others are idle: link echo, 256 bytes',
    method:
      `two pools open at once; ${rounds} bursts of ${BURST} calls a side in turns, back to back (the first ${LEAD} of ` +
      'each not counted), each when both pools are full again',
    chart: 'latency',
    rows: contenders.map(({ ready, latency }) => ({ name: `${ready} idle`, latency })),
    ratios: [atMost(`p50 of a lease with ${many} idle sandboxes over with ${few}`, over, P50_MAX)],
    notes: [],
  }
}
