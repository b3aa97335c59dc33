// How many single-use sandboxes this machine makes, uses and destroys per second when no call ever finds one ready: the
// bound of the throughput, whatever the latency of a single call.
import type { Pool } from '../../worker/pool.ts'
import { closePools, createPayloads } from '../bed.ts'
import { higher, Latency, lower, MachineTime } from '../measure.ts'
import { deployEmpty, untilEmpty } from '../rest.ts'
import { atLeast, type Context, type Figure, type Row, type Scenario, type Section } from '../scenario.ts'

const PER_SECOND_MIN = 450
const IN_FLIGHT = [4, 8, 16] as const
const FULL = { trialMs: 3000, sustainedMs: 30_000, windowMs: 5000 }
const QUICK = { trialMs: 300, sustainedMs: 1000, windowMs: 500 }
type Sizes = typeof FULL
/** More than are ever alive at once: those in flight, those in the making and those being destroyed. */
const SLOTS = 64

export const refill: Scenario = {
  name: 'refill',
  help: 'single-use sandboxes per second, when none is ever ready',
  async run(context) {
    const { bed, isQuick } = context
    const pool = await bed.openPool(0, { slots: SLOTS })
    try {
      await deployEmpty(bed, pool, bed.spec({ name: 'echo', pool: { min: 0, max: SLOTS } }))
      return await measure(context, pool, isQuick ? QUICK : FULL)
    } finally {
      await closePools(pool)
    }
  },
}

async function measure(context: Context, pool: Pool, { trialMs, sustainedMs, windowMs }: Sizes): Promise<Section[]> {
  const trials: Stretch[] = []
  for (const inFlight of IN_FLIGHT) {
    trials.push(await saturate(context, pool, { inFlight, ms: trialMs, windowMs: trialMs }))
    context.progress('trials', trials.length, IN_FLIGHT.length)
  }
  const best = trials.reduce((one, other) => (other.perSecond > one.perSecond ? other : one))
  const sustained = await saturate(context, pool, { inFlight: best.inFlight, ms: sustainedMs, windowMs })
  return [describeTrials(trials), describeSustained(sustained, windowMs)]
}

/** What the calls of a stretch of time did. */
class Stretch {
  readonly inFlight: number
  readonly latency = new Latency()
  readonly windows: Latency[] = []
  readonly machine = new MachineTime()
  ms = 0
  ready = 0

  constructor(inFlight: number) {
    this.inFlight = inFlight
  }

  get perSecond(): number {
    return (this.latency.count / this.ms) * 1000
  }

  get figures(): Readonly<Record<string, Figure>> {
    const { count } = this.latency
    return {
      sandboxes: higher(this.perSecond, '/s'),
      'CPU each': lower(this.machine.busyUs / count, 'µs'),
      'found ready': lower((this.ready / count) * 100, '%'),
    }
  }
}

/** As many callers as calls in flight, each asking again when it has its answer; ends when the last sandbox is gone. */
async function saturate(context: Context, pool: Pool, { inFlight, ms, windowMs }: SaturateOptions): Promise<Stretch> {
  const { bed, progress } = context
  const stretch = new Stretch(inFlight)
  const windows = Math.ceil(ms / windowMs)
  for (let window = 0; window < windows; window++) stretch.windows.push(new Latency())
  const nextPayload = createPayloads()
  let told = 0
  const startedAt = performance.now()
  stretch.machine.start()
  const ask = async () => {
    for (let askedAt = startedAt; askedAt - startedAt < ms; ) {
      // A copy, for the next caller's is written into the same buffer.
      const payload = Buffer.from(nextPayload())
      askedAt = performance.now()
      const invocation = await pool.invoke('echo', payload)
      const answeredAt = performance.now()
      bed.check(invocation, payload, invocation.start)
      stretch.latency.recordMs(answeredAt - askedAt)
      if (invocation.start === 'pooled') stretch.ready += 1
      const window = Math.floor((answeredAt - startedAt) / windowMs)
      // What is answered after the end was asked before it, and counts in the whole.
      stretch.windows[window]?.recordMs(answeredAt - askedAt)
      const second = Math.floor((answeredAt - startedAt) / 1000)
      if (second <= told || second >= ms / 1000) continue
      told = second
      progress(`seconds at ${inFlight} in flight`, second, ms / 1000)
    }
  }
  await Promise.all(Array.from({ length: inFlight }, ask))
  await untilEmpty(pool)
  stretch.machine.stop()
  stretch.ms = performance.now() - startedAt
  return stretch
}

function describeTrials(trials: readonly Stretch[]): Section {
  return {
    id: 'refill.trials',
    title: 'Single-use sandboxes per second, by calls in flight',
    method:
      'link echo, 256 bytes; each caller asks again when it has its answer, nothing is kept ready, everything is on; ' +
      'from the first call until the last sandbox is gone. CPU is that of the whole machine',
    chart: 'figures',
    rows: trials.map(({ inFlight, latency, figures }) => ({ name: `${inFlight} in flight`, latency, figures })),
    ratios: [],
    notes: [],
  }
}

function describeSustained(sustained: Stretch, windowMs: number): Section {
  const { inFlight, latency, windows, figures, perSecond, ms } = sustained
  const seconds = (window: number) => (window * windowMs) / 1000
  const rows = windows.map(
    (window, index): Row => ({
      name: `${seconds(index)} to ${seconds(index + 1)} s`,
      latency: window,
      figures: { sandboxes: higher(window.count / seconds(1), '/s') },
    }),
  )
  const rates = windows.map((window) => window.count / seconds(1))
  return {
    id: 'refill.sustained',
    title: 'Single-use sandboxes per second, sustained',
    method: `${(ms / 1000).toFixed(1)} s with as many calls in flight as made most above (${inFlight}), in stretches of ${seconds(1)} s`,
    chart: 'figures',
    rows: [{ name: 'all of it', latency, figures }, ...rows],
    ratios: [atLeast('single-use sandboxes per second, sustained 30 s', perSecond, PER_SECOND_MIN)],
    notes: [`between ${Math.min(...rates).toFixed(0)} and ${Math.max(...rates).toFixed(0)} per second in each stretch`],
  }
}

interface SaturateOptions {
  readonly inFlight: number
  readonly ms: number
  readonly windowMs: number
}
