// What it costs that a call brings limits of its own: each limit that a call may lower, alone, and the three that a
// person would lower together. The same call without any is in the same burst.
import type { CallLimits } from '../../contract/limits.ts'
import type { Pool } from '../../worker/pool.ts'
import { closePools, createPayloads } from '../bed.ts'
import { Latency, lower } from '../measure.ts'
import { untilFull } from '../rest.ts'
import { atMost, type Context, type Row, type Scenario, type Section } from '../scenario.ts'

const MIB = 1024 * 1024
/** Lower than the function's own, and far above what an echo needs: no limit is ever reached. */
const LOWERED = { cpu: 0.5, cpuWeight: 50, memoryBytes: 64 * MIB, pids: 32, wallMs: 20_000, cpuMs: 10_000 }
const VARIANTS: Readonly<Record<string, CallLimits | undefined>> = {
  'the function’s own': undefined,
  'cpu, memoryBytes, pids': pick('cpu', 'memoryBytes', 'pids'),
  cpu: pick('cpu'),
  cpuWeight: pick('cpuWeight'),
  memoryBytes: pick('memoryBytes'),
  pids: pick('pids'),
  cpuMs: pick('cpuMs'),
  wallMs: pick('wallMs'),
  outputBytes: { outputBytes: MIB },
}
const [OWN = '', TOGETHER = ''] = Object.keys(VARIANTS)
const TOGETHER_US_MAX = 10
/** A call until its answer, and until its message was sent: limits are applied before that. */
class Timing {
  readonly whole = new Latency()
  readonly sent = new Latency()
}
type Timings = ReadonlyMap<string, Timing>

/** The first calls after a rest wake processors and caches. */
const LEAD = 3
/** Fewer calls than half of what is kept ready: from there on the pool refills at once, beside the calls. */
const FULL = { ready: 200, cycles: 10, rounds: 60, warmUpRounds: 3 }
const QUICK = { ready: 30, cycles: 1, rounds: 3, warmUpRounds: 1 }

export const limits: Scenario = {
  name: 'limits',
  help: 'a call that brings limits of its own, beside one that does not',
  run: async (context) => [await change(context)],
}

async function change(context: Context): Promise<Section> {
  const { bed, isQuick } = context
  const sizes = isQuick ? QUICK : FULL
  const timings: Timings = new Map(Object.keys(VARIANTS).map((name) => [name, new Timing()]))
  const pool = await bed.openPool(0, { slots: sizes.ready * 2 })
  try {
    await bed.deploy(pool, bed.spec({ name: 'echo', pool: { min: sizes.ready, max: sizes.ready * 2 } }))
    const total = sizes.warmUpRounds + sizes.rounds
    for (let round = 0; round < total; round++) {
      await untilFull([{ pool, ready: sizes.ready }])
      await burst(context, pool, { cycles: sizes.cycles, round, timings: round < sizes.warmUpRounds ? null : timings })
      context.progress('bursts with changed limits', round + 1, total)
    }
  } finally {
    await closePools(pool)
  }
  return describe(timings, sizes)
}

interface BurstOptions {
  readonly cycles: number
  readonly round: number
  /** Nothing while it warms up. */
  readonly timings: Timings | null
}

/** One call of each kind in every cycle, each cycle beginning with another kind. */
async function burst({ bed }: Context, pool: Pool, { cycles, round, timings }: BurstOptions): Promise<void> {
  const nextPayload = createPayloads()
  const call = async (own: CallLimits | undefined) => {
    const payload = nextPayload()
    const options = own && { limits: own }
    const askedAt = performance.now()
    const invocation = await pool.invoke('echo', payload, options)
    const ms = performance.now() - askedAt
    bed.check(invocation, payload, 'pooled')
    const { acquireNs, sendNs } = invocation.stages
    return { ms, sentMs: (acquireNs + sendNs) / 1e6 }
  }
  for (let lead = 0; lead < LEAD; lead++) await call(undefined)
  const variants = Object.entries(VARIANTS)
  for (let cycle = 0; cycle < cycles; cycle++) {
    for (let turn = 0; turn < variants.length; turn++) {
      const [name = '', own] = variants[(turn + cycle + round) % variants.length] ?? []
      const { ms, sentMs } = await call(own)
      timings?.get(name)?.whole.recordMs(ms)
      timings?.get(name)?.sent.recordMs(sentMs)
    }
  }
}

function describe(timings: Timings, sizes: typeof FULL): Section {
  const over = (name: string, kind: keyof Timing) => {
    const [timing, own] = [timings.get(name), timings.get(OWN)]
    return timing && own ? timing[kind].p50Us - own[kind].p50Us : 0
  }
  const rows = [...timings].map(([name, { whole, sent }]): Row => {
    const figures = { 'until sent': lower(sent.p50Us, 'µs') }
    if (name === OWN) return { name, latency: whole, figures }
    const more = {
      'sent later by': lower(over(name, 'sent'), 'µs'),
      'answered later by': lower(over(name, 'whole'), 'µs'),
    }
    return { name, latency: whole, figures: { ...figures, ...more } }
  })
  return {
    id: 'limits.change',
    title: 'A call that lowers limits, on a ready sandbox: link echo, 256 bytes, a sandbox of its own each time',
    method:
      `pool.invoke until its promise resolves, one call at a time, back to back; ${sizes.rounds} bursts of ` +
      `${sizes.cycles} calls of each kind in turns, ${sizes.ready} kept ready. Limits are applied before the message is ` +
      'sent, so what they cost is in how much later that is; differences of medians, which may come out below zero where ' +
      'there is nothing to see',
    chart: 'latency',
    rows,
    ratios: [atMost('applying changed CPU, memory and pids limits, µs', over(TOGETHER, 'sent'), TOGETHER_US_MAX)],
    notes: [],
  }
}

function pick<K extends keyof typeof LOWERED>(...names: readonly K[]): CallLimits {
  return Object.fromEntries(names.map((name) => [name, LOWERED[name]]))
}
