// Deadlines belong to sandboxd's clock: a blocked event loop stretches none.
import { expect, it } from 'vitest'
import { privileged, until, useHouse } from '../_setup.ts'

const DEADLINES_MS = [500, 900, 1_300]
const BLOCKED_MS = 5_000
/** What a deadline may be late by. One of the three may be caught by whatever else the host does. */
const LATE_MS_MAX = 50

privileged('deadline', () => {
  const pool = { min: DEADLINES_MS.length, max: DEADLINES_MS.length }
  const house = useHouse({}, { pool, limits: { wallMs: 60_000 } })

  it('ends a call within 50 ms of it while the main thread is blocked for 5 s', async () => {
    const calledAt = performance.now()
    const calls = DEADLINES_MS.map((wallMs) => house.invoke('sleep 60000', { limits: { wallMs } }))
    const guests = house.pool.sandboxes().filter(({ state }) => state === 'leased')
    expect(guests.map(({ hostPid }) => isAlive(hostPid))).toEqual([true, true, true])
    // From here on JavaScript does nothing but look which process is gone, which needs no event loop.
    const goneAt = new Map<number, number>()
    while (performance.now() - calledAt < BLOCKED_MS) {
      for (const { hostPid } of guests) {
        if (!goneAt.has(hostPid) && !isAlive(hostPid)) goneAt.set(hostPid, performance.now() - calledAt)
      }
    }
    const lateMs = [...goneAt.values()].map((ms, index) => ms - (DEADLINES_MS[index] ?? 0))
    expect(lateMs).toHaveLength(DEADLINES_MS.length)
    for (const ms of lateMs) expect(ms).toBeGreaterThanOrEqual(0)
    expect(lateMs.toSorted((a, b) => a - b)[1]).toBeLessThan(LATE_MS_MAX)
    for (const [index, call] of calls.entries()) {
      expect((await call).outcome).toMatchObject({ status: 'timed_out', clock: 'wall', limitMs: DEADLINES_MS[index] })
    }
    await until(() => house.pool.sandboxes().every(({ state }) => state === 'ready'))
  })
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
