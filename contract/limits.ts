// What an invocation may use. Resolved once, at the edge, from the manifest over the defaults; a call may lower a
// limit and never raise it. This file does not know how a limit is enforced.

export interface Limits {
  /** CPU bandwidth in cores (0.5 is half of one), enforced by the cgroup's quota. */
  readonly cpu: number
  /** Share under contention, 1 to 10000 as in cgroup v2's cpu.weight; 100 is the kernel's default. */
  readonly cpuWeight: number
  /** Memory of all processes, page cache and tmpfs of the sandbox; swap is off; over it the whole sandbox dies. */
  readonly memoryBytes: number
  /** Tasks (processes and threads), our init included. */
  readonly pids: number
  /** Wall time of one invocation. */
  readonly wallMs: number
  /** CPU time of one invocation; 0 means no limit besides wallMs × cpu. */
  readonly cpuMs: number
  /** Bytes the function may write to its root, /tmp and /dev/shm together. */
  readonly tmpBytes: number
  /** Inodes it may create there. */
  readonly tmpFiles: number
  /** Longest result. */
  readonly outputBytes: number
  /** Log bytes kept per call; more is read and dropped. */
  readonly logBytes: number
  /** RLIMIT_NOFILE. */
  readonly openFiles: number
}

/** The limits a single call may lower; the others are fixed when the sandbox is built. */
export const CALL_LIMITS = ['cpu', 'cpuWeight', 'memoryBytes', 'pids', 'wallMs', 'cpuMs', 'outputBytes'] as const
export type CallLimits = Partial<Pick<Limits, (typeof CALL_LIMITS)[number]>>

const MIB = 1024 * 1024

export const DEFAULT_LIMITS: Limits = {
  cpu: 1,
  cpuWeight: 100,
  memoryBytes: 128 * MIB,
  pids: 64,
  wallMs: 30_000,
  cpuMs: 0,
  tmpBytes: 64 * MIB,
  tmpFiles: 4096,
  outputBytes: 6 * MIB,
  logBytes: 64 * 1024,
  openFiles: 256,
}

/** Inclusive bounds a manifest may ask for. A sandbox needs some 2 MiB and three tasks before the function does anything. */
export const LIMIT_BOUNDS: { readonly [K in keyof Limits]: readonly [min: number, max: number] } = {
  cpu: [0.01, 64],
  cpuWeight: [1, 10_000],
  memoryBytes: [8 * MIB, 64 * 1024 * MIB],
  pids: [3, 4096],
  wallMs: [1, 900_000],
  cpuMs: [0, 900_000],
  tmpBytes: [64 * 1024, 16 * 1024 * MIB],
  tmpFiles: [32, 1_000_000],
  outputBytes: [0, 6 * MIB],
  logBytes: [0, 1 * MIB],
  openFiles: [16, 4096],
}

/** The largest payload, and the largest result, of any invocation: Lambda's synchronous limit. */
export const PAYLOAD_BYTES_MAX = 6 * MIB
