// What is known of a finished call, and how it crosses from the addon; worker/outcome.ts decides what it means.

/** How a call ended, as the addon numbers it. */
const ENDINGS = [
  'result',
  'failed',
  'malformed',
  'output_limit',
  'exited',
  'signaled',
  'cancelled',
  'not_started',
  'wall_time',
  'cpu_time',
  'denied',
  'out_of_memory',
  'lost',
] as const

/** What became of the slot of a finished call, as the addon numbers it; `resets` ends with an `again` or a `gone`. */
export const NEXTS = ['ended', 'serves_on', 'resets'] as const
export type Next = (typeof NEXTS)[number]

/** What is known of a finished call. */
export interface Evidence {
  readonly ending: (typeof ENDINGS)[number]
  /** Exit code, signal, errno or system call, as `ending` says. */
  readonly number: number
  /** What was malformed, or the stage that failed. */
  readonly text: string
  readonly output: Uint8Array
  readonly logs: Uint8Array
  readonly logsTruncated: boolean
  readonly cpuNs: number
  readonly memoryPeakBytes: number
  readonly throttledCount: number
  readonly pidsDeniedCount: number
  readonly oomKills: number
  readonly memoryLimitHits: number
}

/** As deliver.rs gives them. */
export type DoneArguments = [
  slot: number,
  next: number,
  kind: number,
  number: number,
  text: string,
  output: Uint8Array,
  /** How much of `output` is the output, where the next answer will be written to the same bytes; else -1. */
  inboxBytes: number,
  logs: Uint8Array,
  logsTruncated: boolean,
  cpuNs: number,
  memoryPeakBytes: number,
  throttledCount: number,
  pidsDeniedCount: number,
  oomKills: number,
  memoryLimitHits: number,
]

export function evidenceOf(done: DoneArguments): Evidence {
  return {
    ending: ENDINGS[done[2]] ?? 'lost',
    number: done[3],
    text: done[4],
    output: done[6] < 0 ? done[5] : copyOf(done[5], done[6]),
    logs: done[7],
    logsTruncated: done[8],
    cpuNs: done[9],
    memoryPeakBytes: done[10],
    throttledCount: done[11],
    pidsDeniedCount: done[12],
    oomKills: done[13],
    memoryLimitHits: done[14],
  }
}

function copyOf(inbox: Uint8Array, length: number): Uint8Array {
  const copy = Buffer.allocUnsafe(length)
  copy.set(inbox.subarray(0, length))
  return copy
}
