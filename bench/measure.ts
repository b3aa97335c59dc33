// How long calls took: a histogram of constant memory, and what is said of it.
import { performance } from 'node:perf_hooks'
import { build, type Histogram } from 'hdr-histogram-js'

export interface Summary {
  readonly count: number
  readonly p50Us: number
  readonly p90Us: number
  readonly p99Us: number
  readonly p999Us: number
  readonly maxUs: number
}

export class Latency {
  /** In nanoseconds, to three digits. */
  readonly #histogram: Histogram = build({ bitBucketSize: 32, numberOfSignificantValueDigits: 3 })

  recordMs(ms: number): void {
    this.#histogram.recordValue(Math.max(1, Math.round(ms * 1e6)))
  }

  get summary(): Summary {
    const percentile = (value: number) => this.#histogram.getValueAtPercentile(value) / 1000
    return {
      count: this.#histogram.totalCount,
      p50Us: percentile(50),
      p90Us: percentile(90),
      p99Us: percentile(99),
      p999Us: percentile(99.9),
      maxUs: this.#histogram.maxValue / 1000,
    }
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
