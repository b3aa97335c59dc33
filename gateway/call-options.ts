// What a caller may ask of one invocation by headers: X-Timeout and X-Mayfly-Limits, both of which only lower what the
// function has. The pool refuses what would raise a limit; here only the writing is judged.
import { PlatformError } from '../contract/errors.ts'
import { CALL_LIMITS, type CallLimits, type Limits } from '../contract/limits.ts'

const NUMBER = /^\d{1,15}(?:\.\d{1,6})?$/

export interface CallHeaders {
  readonly timeout: string | undefined
  readonly limits: string | undefined
}

/** `of` are the function's own limits: a longer X-Timeout means no more than they say. */
export function parseCallLimits(headers: CallHeaders, of: Limits): CallLimits | undefined {
  if (headers.timeout === undefined && headers.limits === undefined) return undefined
  const limits = headers.limits === undefined ? {} : parseLimits(headers.limits)
  if (headers.timeout === undefined) return limits
  return { ...limits, wallMs: Math.min(parseTimeout(headers.timeout), limits.wallMs ?? of.wallMs, of.wallMs) }
}

/** Milliseconds, or with a unit: `250`, `250ms`, `30s`. */
export function parseTimeout(text: string): number {
  const [, digits, unit] = /^(\d{1,9})(ms|s)?$/.exec(text.trim()) ?? []
  const timeoutMs = Number(digits) * (unit === 's' ? 1000 : 1)
  if (!(timeoutMs >= 1)) throw new PlatformError('INVALID_REQUEST', 'X-Timeout is no time such as 250, 250ms or 30s')
  return timeoutMs
}

/** `memoryBytes=33554432, pids=16`. */
function parseLimits(text: string): CallLimits {
  const pairs = text.split(',').map((pair): [string, number] => {
    const [name = '', value = ''] = pair.split('=').map((part) => part.trim())
    if (!CALL_LIMITS.some((limit) => limit === name)) {
      throw new PlatformError('INVALID_REQUEST', `X-Mayfly-Limits knows ${CALL_LIMITS.join(', ')} only`)
    }
    const isWritten = NUMBER.test(value) && (name === 'cpu' || !value.includes('.'))
    if (!isWritten) throw new PlatformError('INVALID_REQUEST', `X-Mayfly-Limits: ${name} is no number`)
    return [name, Number(value)]
  })
  return Object.fromEntries(pairs)
}
