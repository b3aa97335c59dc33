// How a number is said, the same on a terminal and on the page.
import type { FigureResult, LatencyResult, RatioResult } from './result.ts'

/** Three digits at least, in the unit a person would say. */
export function formatDuration(us: number): string {
  if (us < 100) return `${us.toFixed(1)} µs`
  if (us < 1000) return `${us.toFixed(0)} µs`
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e5 ? 2 : 0)} ms`
  return `${(us / 1e6).toFixed(2)} s`
}

/** Three digits, and all of those before the point. */
export function formatNumber(value: number): string {
  const size = Math.abs(value)
  if (Number.isInteger(value) || size >= 100) return Math.round(value).toLocaleString('en')
  return value.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3)
}

export function formatFigure({ value, unit, runs }: FigureResult): string {
  if (unit === 'µs') return `${formatDuration(value)}${formatSpread(runs, formatDuration)}`
  return `${formatNumber(value)}${unit && ` ${unit}`}${formatSpread(runs, formatNumber)}`
}

export function formatRatio({ value, runs }: Pick<RatioResult, 'value' | 'runs'>): string {
  if (value === null) return 'unknown'
  return `${formatClaimed(value)}${formatSpread(runs, formatClaimed)}`
}

export function formatBound({ bound, isFloor }: Pick<RatioResult, 'bound' | 'isFloor'>): string {
  return bound === null ? '' : `${isFloor ? '≥' : '≤'} ${bound.toLocaleString('en')}`
}

/** Nothing where there are too few calls to know it: the slowest in a thousand takes a thousand. */
export function percentilesOf(latency: LatencyResult): { p50: string; p90: string; p99: string; p999: string } {
  const say = (us: number, calls: number) => (latency.count < calls ? '–' : formatDuration(us))
  return {
    p50: say(latency.p50Us, 1),
    p90: say(latency.p90Us, 10),
    p99: say(latency.p99Us, 100),
    p999: say(latency.p999Us, 1000),
  }
}

export function formatElapsed(ms: number): string {
  const seconds = Math.round(ms / 1000)
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`
}

function formatClaimed(value: number): string {
  const size = Math.abs(value)
  if (size >= 100) return formatNumber(value)
  return value.toFixed(size < 0.2 && size > 0 ? 3 : 2)
}

/** From the lowest run to the highest. */
function formatSpread(runs: readonly number[], say: (value: number) => string): string {
  if (runs.length < 2) return ''
  const [low, high] = [say(Math.min(...runs)), say(Math.max(...runs))]
  // A unit that both have is said once.
  const unit = / \D+$/.exec(high)?.[0]
  return ` (${unit !== undefined && low.endsWith(unit) ? low.slice(0, -unit.length) : low}–${high})`
}
