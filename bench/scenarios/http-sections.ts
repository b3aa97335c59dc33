// What is said of the calls over HTTP: who was asked, what came of it, and the tables.
import { higher, Latency, lower, MachineTime } from '../measure.ts'
import { atLeast, atMost, type Figure, type Row, type Section } from '../scenario.ts'
import type { Told } from './http-load.ts'

export const FRESH = { name: 'Mayfly, fresh', isolated: 'all of it', fresh: 'all of it' }
export const REUSED = { name: 'Mayfly, reused', isolated: 'all of it', fresh: '-' }
export const HONO = { name: 'plain hono', isolated: '-', fresh: '-' }

const FRESH_P50_MAX = 1.3
const REUSED_PER_SECOND_MIN = 0.6
const ECHO = 'POST of 256 bytes, echoed; keep-alive; every body is compared with what was sent'

/** What was told of one contender, over all of its turns. */
export class Tally {
  readonly latency = new Latency()
  readonly machine = new MachineTime()
  #ms = 0
  #cold = 0
  #refused = 0

  get perSecond(): number {
    return (this.latency.count / this.#ms) * 1000
  }

  get cpuPerCall(): Readonly<Record<string, Figure>> {
    return { 'CPU per call': lower(this.machine.busyUs / this.latency.count, 'µs') }
  }

  get figures(): Readonly<Record<string, Figure>> {
    const { count } = this.latency
    return {
      calls: higher(this.perSecond, '/s'),
      'started cold': lower((this.#cold / count) * 100, '%'),
      refused: lower(this.#refused),
    }
  }

  add({ ms, tookMs, starts, refusals }: Told, lead = 0): void {
    for (const one of ms.subarray(lead)) this.latency.recordMs(one)
    this.#ms += tookMs
    this.#cold += starts.filter((start) => start === 'cold').length
    this.#refused += refusals.length
  }
}

export type Tallies = ReadonlyMap<string, Tally>

export function describeBursts(
  tallies: Tallies,
  { rounds, calls, lead, ready }: { rounds: number; calls: number; lead: number; ready: number },
): Section {
  const over = (name: string) => quotient(tallies, name, ({ latency }) => latency.p50Us)
  return {
    id: 'http.c1',
    title: 'Over HTTP, 1 connection, every call to a ready sandbox',
    method:
      `${ECHO}; ${rounds} bursts of ${calls} calls a side in turns, back to back (the first ${lead} of each not counted), ` +
      `${ready} kept ready, each burst from a full pool at rest; the load comes from a process of its own`,
    chart: 'latency',
    rows: rowsOf(tallies, () => ({})),
    ratios: [
      atMost('pooled fresh call over HTTP, 1 connection, over plain hono, p50', over(FRESH.name), FRESH_P50_MAX),
      atMost('reused call over HTTP, 1 connection, over plain hono, p50', over(REUSED.name)),
    ],
    notes: [],
  }
}

export function describeSaturated(
  tallies: Tallies,
  { connections, rounds, ms }: { connections: number; rounds: number; ms: number },
): Section {
  const isMost = connections === 32
  const reused = quotient(tallies, REUSED.name, ({ perSecond }) => perSecond)
  return {
    id: `http.c${connections}`,
    title: `Over HTTP, ${connections} connections, each asking again when it has its answer`,
    method:
      `${ECHO}; ${rounds} stretches of ${ms / 1000} s a side in turns, each from a full pool at rest. A fresh sandbox each ` +
      'empties the pool: its calls per second are what is made anew. CPU is that of the whole machine, the load’s included',
    chart: 'latency',
    rows: rowsOf(tallies, ({ figures, cpuPerCall }) => ({ figures: { ...figures, ...cpuPerCall } })),
    ratios: [
      atLeast(
        `reused calls per second over HTTP, ${connections} connections, over plain hono`,
        reused,
        isMost ? REUSED_PER_SECOND_MIN : undefined,
      ),
    ],
    notes: [],
  }
}

export function describeArrivals(
  tallies: Tallies,
  { connections, perSecond, rounds, ms }: { connections: number; perSecond: number; rounds: number; ms: number },
): Section {
  return {
    id: 'http.open',
    title: 'Over HTTP, calls that arrive at a fixed rate, whatever became of those before',
    method:
      `${ECHO}; ${perSecond} calls per second, half of what fresh sandboxes sustained, over as many of ${connections} ` +
      `connections as it takes; ${rounds} stretches of ${ms / 1000} s a side in turns. Each is timed from when it was to be ` +
      'sent, so that a stall is in every call that it delays',
    chart: 'latency',
    rows: rowsOf(tallies, ({ figures }) => ({ figures })),
    ratios: [],
    notes: [],
  }
}

function rowsOf(tallies: Tallies, more: (tally: Tally) => Pick<Row, 'figures'>): Row[] {
  return [FRESH, REUSED, HONO].flatMap((who) => {
    const tally = tallies.get(who.name)
    return tally === undefined ? [] : [{ ...who, latency: tally.latency, ...more(tally) }]
  })
}

/** Of one of ours, over the plain server’s. */
function quotient(tallies: Tallies, name: string, of: (tally: Tally) => number): number | undefined {
  const [ours, plain] = [tallies.get(name), tallies.get(HONO.name)]
  return ours && plain && of(ours) / of(plain)
}
