// How an invocation becomes an HTTP answer: the function's bytes where it succeeded, a JSON error where it did not, and
// on both the same headers that say which sandbox ran it, where the time went and what was used.
import type { Invocation } from '../contract/invocation.ts'
import type { Limits } from '../contract/limits.ts'
import type { Outcome, OutcomeStatus, Usage } from '../contract/outcome.ts'

const HTTP_STATUS: Readonly<Record<OutcomeStatus, number>> = {
  ok: 200,
  failed: 502,
  exited: 502,
  signaled: 502,
  denied: 502,
  limit_exceeded: 502,
  out_of_memory: 502,
  timed_out: 504,
  /** The client is gone; nginx's number for it, for whoever reads the log. */
  cancelled: 499,
}
/** As Lambda's log tail. */
const LOG_TAIL_BYTES = 4096

export interface OutcomeAnswer {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body: Uint8Array | string
}

export interface AnswerOptions {
  readonly requestId: string
  readonly wantsLogs: boolean
  /** How long the body took to arrive, and all of it up to here. */
  readonly bodyMs: number
  readonly totalMs: number
}

export function outcomeAnswer(invocation: Invocation, options: AnswerOptions): OutcomeAnswer {
  const { outcome } = invocation
  const headers: Record<string, string> = {
    'X-Mayfly-Outcome': outcome.status,
    'X-Mayfly-Start': invocation.start,
    'X-Mayfly-Sandbox': invocation.sandbox,
    'X-Mayfly-Usage': usageHeader(outcome.usage),
    'Server-Timing': timingHeader(invocation, options),
  }
  if (options.wantsLogs) headers['X-Mayfly-Logs'] = tailOf(outcome.logs).toString('base64')
  const status = HTTP_STATUS[outcome.status]
  if (outcome.status === 'ok') {
    headers['Content-Type'] = 'application/octet-stream'
    return { status, headers, body: outcome.output }
  }
  headers['Content-Type'] = 'application/json'
  return { status, headers, body: JSON.stringify({ error: errorOf(outcome, options.requestId) }) }
}

function errorOf(outcome: Exclude<Outcome, { status: 'ok' }>, requestId: string) {
  const { status, usage, logs, logsTruncated, ...details } = outcome
  return {
    code: status.toUpperCase(),
    ...details,
    message: messageOf(outcome),
    limit: limitOf(outcome),
    usage,
    logs: logs.length > 0 ? tailOf(logs).toString('utf8') : undefined,
    requestId,
  }
}

function messageOf(outcome: Exclude<Outcome, { status: 'ok' }>): string {
  switch (outcome.status) {
    case 'failed':
      return outcome.message
    case 'exited':
      return `the function exited with code ${outcome.exitCode}`
    case 'signaled':
      return `the function was ended by ${outcome.signal}`
    case 'timed_out':
      return `the function used up its ${outcome.clock} time of ${outcome.limitMs} ms`
    case 'out_of_memory':
      return `the function needed more than its ${outcome.limitBytes} bytes of memory`
    case 'limit_exceeded':
      return `the function went over its ${outcome.limit} of ${outcome.max}`
    case 'denied':
      return `the function was ended at the forbidden system call ${outcome.syscall}`
    case 'cancelled':
      return 'the invocation was cancelled'
  }
}

function limitOf(outcome: Outcome): { name: keyof Limits; value: number } | undefined {
  switch (outcome.status) {
    case 'timed_out':
      return { name: outcome.clock === 'wall' ? 'wallMs' : 'cpuMs', value: outcome.limitMs }
    case 'out_of_memory':
      return { name: 'memoryBytes', value: outcome.limitBytes }
    case 'limit_exceeded':
      return { name: outcome.limit, value: outcome.max }
    default:
      return undefined
  }
}

/** A dictionary of RFC 9651. */
function usageHeader(usage: Usage): string {
  return (
    `wall-ns=${usage.wallNs}, cpu-ns=${usage.cpuNs}, memory-peak-bytes=${usage.memoryPeakBytes}, ` +
    `throttled-count=${usage.throttledCount}, pids-denied-count=${usage.pidsDeniedCount}, ` +
    `oom-kill-count=${usage.oomKillCount}`
  )
}

/** W3C Server-Timing: durations in milliseconds, here to the nanosecond. */
function timingHeader({ stages }: Invocation, { bodyMs, totalMs }: AnswerOptions): string {
  const fromNs = (ns: number) => (ns / 1e6).toFixed(6)
  return (
    `body;dur=${bodyMs.toFixed(6)}, acquire;dur=${fromNs(stages.acquireNs)}, send;dur=${fromNs(stages.sendNs)}, ` +
    `run;dur=${fromNs(stages.runNs)}, total;dur=${totalMs.toFixed(6)}`
  )
}

function tailOf(logs: Uint8Array): Buffer {
  const tail = logs.subarray(Math.max(0, logs.length - LOG_TAIL_BYTES))
  return Buffer.from(tail.buffer, tail.byteOffset, tail.byteLength)
}
