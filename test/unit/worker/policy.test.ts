// What the worker decides without a sandbox: limits of a call, the meaning of an end, when to build.
import { describe, expect, it } from 'vitest'
import type { FunctionSpec } from '../../../contract/function.ts'
import { type CallLimits, DEFAULT_LIMITS } from '../../../contract/limits.ts'
import type { Evidence } from '../../../native/index.ts'
import { Breaker } from '../../../worker/breaker.ts'
import { FunctionPool } from '../../../worker/function-pool.ts'
import { lowerLimits, nativeLimits } from '../../../worker/limits.ts'
import { outcomeOf } from '../../../worker/outcome.ts'

const spec = (pool: { min: number; max: number }) => ({ name: 'f', limits: DEFAULT_LIMITS, pool }) as FunctionSpec

describe('limits of a call', () => {
  it('are the function’s, lowered', () => {
    const limits = lowerLimits(DEFAULT_LIMITS, { cpu: 0.5, wallMs: 100, cpuMs: 50 })
    expect(limits).toEqual({ ...DEFAULT_LIMITS, cpu: 0.5, wallMs: 100, cpuMs: 50 })
  })

  for (const [why, asked] of [
    ['raised', { memoryBytes: DEFAULT_LIMITS.memoryBytes + 1 }],
    ['negative', { wallMs: -1 }],
    ['absurdly low', { memoryBytes: 1 }],
    ['no number', { wallMs: Number.NaN }],
    ['a fraction of a process', { pids: 7.5 }],
    ['made unlimited', { cpuMs: 0 }],
    ['not a call’s to set', { tmpBytes: 65_536 }],
  ] as const) {
    it(`are refused when ${why}`, () => {
      expect(() => lowerLimits(DEFAULT_LIMITS, asked as CallLimits)).toThrow(
        expect.objectContaining({ code: 'INVALID_REQUEST' }),
      )
    })
  }

  it('reach the kernel in its units', () => {
    expect(nativeLimits({ ...DEFAULT_LIMITS, cpu: 0.25 }).cpuQuotaUs).toBe(25_000)
  })
})

describe('an end', () => {
  const end = (evidence: Partial<Evidence>) => outcomeOf({ ...NOTHING, ...evidence }, DEFAULT_LIMITS, 5)

  for (const [what, evidence, outcome] of [
    ['an exit', { ending: 'exited', number: 137 }, { status: 'exited', exitCode: 137 }],
    ['a signal', { ending: 'signaled', number: 11 }, { status: 'signaled', signal: 'SIGSEGV' }],
    ['a kill for memory', killed(1, 1), { status: 'out_of_memory', limitBytes: DEFAULT_LIMITS.memoryBytes }],
    ['an exit after refused forks', { ending: 'exited', number: 1, pidsDeniedCount: 3 }, { status: 'limit_exceeded' }],
    ['a good end after refused forks', { ending: 'result', pidsDeniedCount: 3 }, { status: 'ok' }],
    ['a wrong frame', { ending: 'malformed', text: 'why' }, { status: 'failed', message: 'malformed answer: why' }],
    ['the wall clock', { ending: 'wall_time' }, { status: 'timed_out', clock: 'wall' }],
  ] as const) {
    it(`by ${what} is ${outcome.status}`, () => expect(end(evidence)).toMatchObject(outcome))
  }

  it('by an ancestor’s lack of memory is an error of ours', () => {
    expect(() => end(killed(1, 0))).toThrow(expect.objectContaining({ code: 'HOST_OUT_OF_MEMORY' }))
    expect(() => end({ ending: 'lost' })).toThrow(expect.objectContaining({ code: 'SETUP_FAILED' }))
  })
})

describe('shortage', () => {
  const waiter = { take: () => {}, refuse: () => {} }

  it('is counted once, whoever found it', () => {
    const pool = new FunctionPool(1, spec({ min: 2, max: 10 }))
    expect(pool.wanted).toBe(2)
    pool.warming = 2
    expect(pool.wanted).toBe(0)
    pool.wait({ ...waiter })
    expect(pool.wanted).toBe(1)
    pool.resetting = 1
    expect(pool.wanted).toBe(0)
  })

  it('never exceeds the function’s maximum, those in the making included', () => {
    const pool = new FunctionPool(1, spec({ min: 2, max: 4 }))
    for (let i = 0; i < 20; i++) pool.wait({ ...waiter })
    pool.leased = 2
    pool.warming = 1
    expect(pool.wanted).toBe(1)
  })

  it('is one at a time while in doubt, and none while the breaker is open', () => {
    const pool = new FunctionPool(1, spec({ min: 4, max: 10 }))
    pool.breaker.fail('it exits')
    expect(pool.wanted).toBe(1)
    pool.breaker.fail('it exits')
    pool.breaker.fail('it exits')
    expect(pool.wanted).toBe(0)
    expect(() => pool.wait({ ...waiter })).toThrow('f: it exits')
  })

  it('is forgotten by a breaker that sees a success', () => {
    const breaker = new Breaker()
    for (let i = 0; i < 3; i++) breaker.fail('no')
    expect(breaker.reason).toBe('no')
    expect(breaker.pauseMs).toBeGreaterThan(0)
    breaker.succeed()
    expect(breaker.reason).toBeUndefined()
  })
})

const NOTHING: Evidence = {
  ending: 'result',
  number: 0,
  text: '',
  output: new Uint8Array(),
  logs: new Uint8Array(),
  logsTruncated: false,
  cpuNs: 0,
  memoryPeakBytes: 0,
  throttledCount: 0,
  pidsDeniedCount: 0,
  oomKills: 0,
  memoryLimitHits: 0,
}

function killed(oomKills: number, memoryLimitHits: number) {
  return { ending: 'signaled', number: 9, oomKills, memoryLimitHits } as const
}
