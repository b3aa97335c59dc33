// What a scenario is, and what comes back of it. A new one is a file in scenarios/ and a line in main.ts.
import type { Bed } from './bed.ts'
import type { Summary } from './measure.ts'

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
  readonly title: string
  /** What exactly was measured, and how. */
  readonly method: string
  readonly rows: readonly Row[]
  readonly ratios: readonly Ratio[]
  /** What the reader must know to believe it, such as a peer that is not installed. */
  readonly notes: readonly string[]
}

export interface Row {
  readonly name: string
  readonly latency: Summary
  /** What keeps the program apart from the host. */
  readonly isolated?: string
  /** What no earlier call has touched. */
  readonly fresh?: string
}

/** A claim: a number, and the most it may be. */
export interface Ratio {
  readonly name: string
  /** Nothing where the other side of it is not there. */
  readonly value: number | null
  /** Nothing where no claim is made. */
  readonly bound: number | null
  readonly met: boolean | null
}

export function ratio(name: string, value: number | undefined, bound?: number): Ratio {
  const isKnown = value !== undefined && bound !== undefined
  return { name, value: value ?? null, bound: bound ?? null, met: isKnown ? value <= bound : null }
}
