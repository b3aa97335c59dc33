// One request to run a function once, and what comes back of it.
import type { CallLimits } from './limits.ts'
import type { Outcome } from './outcome.ts'

/** Where the sandbox of a call came from: ready in the pool, built for this call, or used before (`reuse: function`). */
export type Start = 'pooled' | 'cold' | 'reused'

export interface InvokeOptions {
  /** Lowers the function's limits for this call; raising one is INVALID_REQUEST. */
  readonly limits?: CallLimits
  /** Ends the call as `cancelled`; the sandbox is destroyed. */
  readonly signal?: AbortSignal
}

export interface Invocation {
  readonly outcome: Outcome
  readonly start: Start
  /** `<instance>-<slot>-<generation>`: never given twice. */
  readonly sandbox: string
  /** Where the time went, in nanoseconds of the worker's monotonic clock. */
  readonly stages: {
    /** From invoke() until a sandbox was ours. */
    readonly acquireNs: number
    /** From there until the message was sent. */
    readonly sendNs: number
    /** From there until the answer was read. */
    readonly runNs: number
  }
}
