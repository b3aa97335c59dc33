// How long calls took: a histogram of constant memory, and what is said of it; and what the whole machine spent meanwhile.
import { readFileSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import { build, type Histogram } from 'hdr-histogram-js'
import type { FigureResult } from './result.ts'

export interface Summary {
  readonly count: number
  readonly p50Us: number
  readonly p90Us: number
  readonly p99Us: number
  readonly p999Us: number
  readonly maxUs: number
}

/** The part of the calls, in percent, that took no longer than that. */
export type Point = readonly [percentile: number, us: number]

/** Dense where calls differ: towards the slowest. */
const PERCENTILES = [
  ...[0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 97, 98],
  ...[99, 99.25, 99.5, 99.75, 99.9, 99.95, 99.99],
]

export class Latency {
  /** In nanoseconds, to three digits. */
  readonly #histogram: Histogram = build({ bitBucketSize: 32, numberOfSignificantValueDigits: 3 })

  recordMs(ms: number): void {
    this.#histogram.recordValue(Math.max(1, Math.round(ms * 1e6)))
  }

  add(other: Latency): void {
    this.#histogram.add(other.#histogram)
  }

  get count(): number {
    return this.#histogram.totalCount
  }

  get p50Us(): number {
    return this.#percentileUs(50)
  }

  get p90Us(): number {
    return this.#percentileUs(90)
  }

  get p99Us(): number {
    return this.#percentileUs(99)
  }

  get p999Us(): number {
    return this.#percentileUs(99.9)
  }

  get maxUs(): number {
    return this.#histogram.maxValue / 1000
  }

  get summary(): Summary {
    const { count, p50Us, p90Us, p99Us, p999Us, maxUs } = this
    return { count, p50Us, p90Us, p99Us, p999Us, maxUs }
  }

  /** For a plot; ends where the samples do: a hundred calls know nothing of the slowest in a thousand. */
  distribution(): Point[] {
    const { count } = this
    if (count === 0) return []
    const known = PERCENTILES.filter((percentile) => percentile < 100 - 100 / count)
    return [...known.map((percentile): Point => [percentile, this.#percentileUs(percentile)]), [100, this.maxUs]]
  }

  #percentileUs(percentile: number): number {
    return this.#histogram.getValueAtPercentile(percentile) / 1000
  }
}

/** As a scenario says it, before there are runs to compare. */
type Figure = Omit<FigureResult, 'runs'>

/** A number of which less is better. */
export function lower(value: number, unit = ''): Figure {
  return { value, unit, better: 'lower' }
}

/** A number of which more is better. */
export function higher(value: number, unit = ''): Figure {
  return { value, unit, better: 'higher' }
}

/** The kernel counts time for /proc/stat in hundredths of a second, whatever its own tick. */
const US_PER_TICK = 10_000

/**
 * CPU time of everything on the machine: what a call costs is in the kernel, in sandboxd and in the sandbox too. Starts
 * and stops as often as contenders take turns. What the hypervisor gave to others is not ours.
 */
export class MachineTime {
  #startedUs: number | undefined
  #busyUs = 0

  start(): void {
    this.#startedUs = readBusyUs()
  }

  /** What this stretch took, in steps of 10 ms. */
  stop(): number {
    if (this.#startedUs === undefined) throw new Error('it was not started')
    const us = readBusyUs() - this.#startedUs
    this.#startedUs = undefined
    this.#busyUs += us
    return us
  }

  /** Of all stretches together. */
  get busyUs(): number {
    return this.#busyUs
  }
}

function readBusyUs(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readProcessorTicks()
  return (user + nice + system + irq + softirq) * US_PER_TICK
}

/** user, nice, system, idle, iowait, irq, softirq, steal: of all processors since the machine started. */
export function readProcessorTicks(): number[] {
  const [first = ''] = readFileSync('/proc/stat', 'latin1').split('\n')
  return first.split(/\s+/).slice(1).map(Number)
}

/** What could be given to programs now without swapping, as the kernel estimates it. */
export function memAvailableKiB(): number {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'latin1'))
  if (match === null) throw new Error('the kernel does not say how much memory is available')
  return Number(match[1])
}

/** Nothing where the host does not say. */
export function tolerant<T>(read: () => T): T | null {
  try {
    return read()
  } catch {
    return null
  }
}

/** Waits for a condition that the host brings about in its own time; the deadline is for a broken one only. */
export async function until(what: () => string, condition: () => boolean, deadlineMs = 60_000): Promise<void> {
  const end = performance.now() + deadlineMs
  while (!condition()) {
    if (performance.now() > end) throw new Error(`waited ${deadlineMs / 1000} s for ${what()}`)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}
