// What a scenario is, and what comes back of it. A new one is a file in scenarios/ and a line in main.ts.
import type { Bed } from './bed.ts'
import type { Latency } from './measure.ts'

export interface Scenario {
  readonly name: string
  readonly help: string
  run(context: Context): Promise<readonly Section[]>
}

export interface Context {
  readonly bed: Bed
  /** A smoke run: few samples, and no number means anything. */
  readonly isQuick: boolean
  /** `done` of `total`, to whoever waits. */
  progress(what: string, done: number, total: number): void
}

/** One table of the report: contenders measured in turns, in one run. */
export interface Section {
  /** Names the section across runs and reports, such as `lease.link`. */
  readonly id: string
  readonly title: string
  /** What exactly was measured, and how. */
  readonly method: string
  /** `latency`: distributions side by side; `stages`: parts of one whole; `figures`: numbers that are no latency. */
  readonly chart: 'latency' | 'stages' | 'figures'
  readonly rows: readonly Row[]
  readonly ratios: readonly Ratio[]
  /** What the reader must know to believe it, such as a peer that is not installed. */
  readonly notes: readonly string[]
}

export interface Row {
  /** Unique in its section; the same in every run. */
  readonly name: string
  readonly latency?: Latency
  /** Whatever else was measured, by heading, in the order of the columns. */
  readonly figures?: Readonly<Record<string, Figure>>
  /** What keeps the program apart from the host. */
  readonly isolated?: string
  /** What no earlier call has touched. */
  readonly fresh?: string
}

export interface Figure {
  readonly value: number
  /** As a person reads it: `µs`, `/s`, `KiB`, or nothing for a count. */
  readonly unit: string
  /** Which way is up, for `bench compare`. */
  readonly better: 'lower' | 'higher'
}

/** A claim: a number, and the most it may be, or the least where `isFloor`. */
export interface Ratio {
  readonly name: string
  /** Nothing where the other side of it is not there. */
  readonly value: number | null
  /** Nothing where no claim is made. */
  readonly bound: number | null
  readonly isFloor: boolean
  readonly met: boolean | null
}

/** `value` is to be at most `bound`. */
export function atMost(name: string, value: number | undefined, bound?: number): Ratio {
  const isKnown = value !== undefined && bound !== undefined
  return { name, value: value ?? null, bound: bound ?? null, isFloor: false, met: isKnown ? value <= bound : null }
}

/** `value` is to be at least `bound`. */
export function atLeast(name: string, value: number | undefined, bound?: number): Ratio {
  const isKnown = value !== undefined && bound !== undefined
  return { name, value: value ?? null, bound: bound ?? null, isFloor: true, met: isKnown ? value >= bound : null }
}
