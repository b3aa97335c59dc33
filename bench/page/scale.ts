// Axes: where a value lies between the ends, and which round values to name.

export interface Scale {
  /** From 0 at one end to 1 at the other; what lies outside is put at the end. */
  at(value: number): number
  readonly ticks: readonly number[]
}

/** More names than that run into each other. */
const TICKS_MAX = 9
/** As a part of the whole: the ends of what is drawn keep off the frame. */
const MARGIN = 0.02

/** For latencies: each doubling takes the same room. */
export function logarithmic(values: readonly number[]): Scale {
  const positive = values.filter((value) => value > 0)
  const low = Math.log10(Math.min(...positive))
  // Half a decade at least: what differs little shall look alike.
  const high = Math.max(Math.log10(Math.max(...positive)), low + 0.5)
  const margin = (high - low) * MARGIN
  const at = (value: number) => clamp((Math.log10(Math.max(value, 1e-9)) - low + margin) / (high - low + 2 * margin))
  for (const steps of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = ticksOf(steps, low, high)
    if (ticks.length <= TICKS_MAX || steps.length === 1) return { at, ticks }
  }
  return { at, ticks: [] }
}

/** From nothing. */
export function linear(values: readonly number[]): Scale {
  const high = Math.max(...values, Number.MIN_VALUE)
  return { at: (value) => clamp(value / high), ticks: [] }
}

function ticksOf(steps: readonly number[], low: number, high: number): number[] {
  const ticks: number[] = []
  for (let decade = Math.floor(low); decade <= Math.ceil(high); decade++) {
    ticks.push(...steps.map((step) => step * 10 ** decade))
  }
  return ticks.filter((tick) => Math.log10(tick) >= low - 1e-9 && Math.log10(tick) <= high + 1e-9)
}

function clamp(part: number): number {
  return Math.min(1, Math.max(0, part))
}
