// How an invocation ended, as data. What the function did is an Outcome; what we did wrong is a PlatformError
// (errors.ts). An outcome is never thrown.

export interface Usage {
  readonly wallNs: number
  readonly cpuNs: number
  readonly memoryPeakBytes: number
  /** Times the CPU quota stopped the sandbox. */
  readonly throttledCount: number
  /** Forks refused by the pids limit. */
  readonly pidsDeniedCount: number
  /** Processes of the sandbox that the kernel killed for want of memory. */
  readonly oomKillCount: number
}

export type OutcomeStatus =
  | 'ok'
  | 'failed'
  | 'exited'
  | 'signaled'
  | 'timed_out'
  | 'out_of_memory'
  | 'limit_exceeded'
  | 'denied'
  | 'cancelled'

/** The part of an outcome that depends on how it ended. */
export type Ending =
  | { readonly status: 'ok'; readonly output: Uint8Array }
  /** The function said so itself (a `link` error frame), or its answer was no valid frame. */
  | { readonly status: 'failed'; readonly message: string }
  /** It ended by exit: for `stdio` with a code other than 0, for `link` with any code and no answer. */
  | { readonly status: 'exited'; readonly exitCode: number }
  /** It died by a signal that neither we nor a limit sent. */
  | { readonly status: 'signaled'; readonly signal: string }
  | { readonly status: 'timed_out'; readonly clock: 'wall' | 'cpu'; readonly limitMs: number }
  | { readonly status: 'out_of_memory'; readonly limitBytes: number }
  | { readonly status: 'limit_exceeded'; readonly limit: 'outputBytes' | 'pids'; readonly max: number }
  /** It made a system call the profile forbids, and was killed before the call did anything. */
  | { readonly status: 'denied'; readonly syscall: string }
  | { readonly status: 'cancelled' }

export type Outcome = Ending & {
  readonly usage: Usage
  /** stderr (`stdio`) or stdout and stderr (`link`), the first `logBytes` of them. */
  readonly logs: Uint8Array
  readonly logsTruncated: boolean
}
