// The only place that knows how the evidence of a call's end becomes an outcome. Decided from cgroup events, from who
// killed and from init's word; never guessed from an exit code.
import { constants } from 'node:os'
import { PlatformError } from '../contract/errors.ts'
import type { Limits } from '../contract/limits.ts'
import type { Ending, Outcome } from '../contract/outcome.ts'
import { type Evidence, syscallName } from '../native/index.ts'

const SIGNALS = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]))

/** Throws PlatformError where the end was our doing. */
export function outcomeOf(evidence: Evidence, limits: Limits, wallNs: number): Outcome {
  const { cpuNs, memoryPeakBytes, throttledCount, pidsDeniedCount, oomKills, logs, logsTruncated } = evidence
  const usage = { wallNs, cpuNs, memoryPeakBytes, throttledCount, pidsDeniedCount, oomKillCount: oomKills }
  return { ...endingOf(evidence, limits), usage, logs, logsTruncated }
}

function endingOf(evidence: Evidence, limits: Limits): Ending {
  switch (evidence.ending) {
    case 'result':
      return { status: 'ok', output: evidence.output }
    case 'failed':
      return { status: 'failed', message: Buffer.from(evidence.output).toString('utf8') }
    case 'malformed':
      return { status: 'failed', message: `malformed answer: ${evidence.text}` }
    case 'output_limit':
      return { status: 'limit_exceeded', limit: 'outputBytes', max: limits.outputBytes }
    case 'exited':
    case 'signaled':
      return deathOf(evidence, limits)
    case 'cancelled':
      return { status: 'cancelled' }
    case 'wall_time':
      return { status: 'timed_out', clock: 'wall', limitMs: limits.wallMs }
    case 'cpu_time':
      return { status: 'timed_out', clock: 'cpu', limitMs: limits.cpuMs }
    case 'denied':
      return { status: 'denied', syscall: syscallName(evidence.number) }
    case 'out_of_memory':
      return outOfMemory(evidence, limits)
    case 'not_started':
      throw new PlatformError(
        'START_FAILED',
        `the program could not be started: ${evidence.text}, errno ${evidence.number}`,
      )
    case 'lost':
      throw new PlatformError('SETUP_FAILED', 'the sandbox died, and not by the function: its init is gone')
  }
}

/** The process ended before a limit was seen to end it; the counters say whether a limit was behind it. */
function deathOf(evidence: Evidence, limits: Limits): Ending {
  if (evidence.oomKills > 0) return outOfMemory(evidence, limits)
  if (evidence.pidsDeniedCount > 0) return { status: 'limit_exceeded', limit: 'pids', max: limits.pids }
  if (evidence.ending === 'exited') return { status: 'exited', exitCode: evidence.number }
  return { status: 'signaled', signal: SIGNALS.get(evidence.number) ?? `SIG${evidence.number}` }
}

/** An innocent killed because an ancestor group was out of memory shows a kill too, but no hit of its own limit. */
function outOfMemory(evidence: Evidence, limits: Limits): Ending {
  if (evidence.memoryLimitHits > 0) return { status: 'out_of_memory', limitBytes: limits.memoryBytes }
  throw new PlatformError('HOST_OUT_OF_MEMORY', 'the worker, and not the function, was out of memory')
}
