// Deadlines belong to sandboxd's clock: a blocked event loop stretches none.
import { expect, it } from 'vitest'
import { processes, UID_BASE } from '../_host.ts'
import { privileged, until, useHouse } from '../_setup.ts'

const DEADLINE_MS = 500
const BLOCKED_MS = 5_000

privileged('deadline', () => {
  const house = useHouse({}, { limits: { cpu: 1, wallMs: 60_000 } })

  it('ends a call within 50 ms of it while the main thread is blocked for 5 s', async () => {
    const guest = () => processes().filter(({ uid, name }) => uid >= UID_BASE + 1000 && name.startsWith('probe'))
    const before = new Set(guest().map(({ pid }) => pid))
    const calledAt = performance.now()
    const call = house.invoke('sleep 60000', { limits: { wallMs: DEADLINE_MS } })
    const leased = house.pool.sandboxes().find(({ state }) => state === 'leased')
    expect(before.has(leased?.hostPid ?? 0)).toBe(true)
    // From here on JavaScript does nothing but look whether the process is there, which needs no event loop.
    let goneAt: number | undefined
    while (performance.now() - calledAt < BLOCKED_MS) {
      if (goneAt === undefined && !isAlive(leased?.hostPid ?? 0)) goneAt = performance.now()
    }
    expect(goneAt).toBeDefined()
    expect((goneAt ?? 0) - calledAt).toBeGreaterThanOrEqual(DEADLINE_MS)
    expect((goneAt ?? 0) - calledAt).toBeLessThan(DEADLINE_MS + 50)
    expect((await call).outcome).toMatchObject({ status: 'timed_out', clock: 'wall', limitMs: DEADLINE_MS })
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
