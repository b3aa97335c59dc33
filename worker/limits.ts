// The limits of one call: the function's, lowered where the call asks for less.
import { PlatformError } from '../contract/errors.ts'
import { CALL_LIMITS, type CallLimits, LIMIT_BOUNDS, type Limits } from '../contract/limits.ts'
import type { NativeLimits } from '../native/index.ts'

/** The cgroup's period, in which `cpu` cores are a quota. */
const CPU_PERIOD_US = 100_000

export function nativeLimits(limits: Limits): NativeLimits {
  return {
    cpuQuotaUs: Math.round(limits.cpu * CPU_PERIOD_US),
    cpuWeight: limits.cpuWeight,
    memoryBytes: limits.memoryBytes,
    pids: limits.pids,
    wallMs: limits.wallMs,
    cpuMs: limits.cpuMs,
    outputBytes: limits.outputBytes,
  }
}

/** Refuses to raise: INVALID_REQUEST. */
export function lowerLimits(limits: Limits, asked: CallLimits): Limits {
  const lowered = { ...limits }
  for (const key of Object.keys(asked) as (keyof CallLimits)[]) {
    const value = asked[key]
    if (value === undefined) continue
    refuseUnlessLower(key, limits[key], value)
    lowered[key] = value
  }
  return lowered
}

function refuseUnlessLower(key: keyof CallLimits, own: number, value: number): void {
  if (!CALL_LIMITS.includes(key)) throw new PlatformError('INVALID_REQUEST', `${key} is no limit of a call`)
  // A function's cpuMs of 0 means "no limit", so any is lower; a call cannot ask for it.
  const [min, max] = key === 'cpuMs' ? [1, own || Number.POSITIVE_INFINITY] : [LIMIT_BOUNDS[key][0], own]
  const isNumber = Number.isFinite(value) && (key === 'cpu' || Number.isInteger(value))
  if (!isNumber || value < min) {
    throw new PlatformError('INVALID_REQUEST', `${key}: ${value} is below the least, ${min}, or no whole number`)
  }
  if (value > max) {
    const message = `${key}: a call may lower the function's ${own}, not raise it to ${value}`
    throw new PlatformError('INVALID_REQUEST', message)
  }
}
