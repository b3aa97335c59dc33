// What a lease changes outside of JavaScript: where the function runs, and what its group passes on to the next sandbox.
import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { describe, expect, it } from 'vitest'
import { privileged, until, useHouse } from '../_setup.ts'

const MIB = 1024 * 1024

privileged('lease', () => {
  describe('the processor', () => {
    const house = useHouse({}, { limits: { pids: 8, wallMs: 10_000 }, pool: { min: 2, max: 2 } })
    const own = processorsOf('/proc/self')

    it('of a lone call is the caller’s, until the call grows long: then every thread has all', async () => {
      expect(own.size).toBe(availableParallelism())
      let { running, pid, seenAfterMs } = spin()
      // Seen too late it may have been let loose already.
      for (let attempt = 0; seenAfterMs > 1 && attempt < 20; attempt++) {
        await running
        await house.rest()
        ;({ running, pid, seenAfterMs } = spin())
      }
      expect(seenAfterMs).toBeLessThan(1)
      const threads = () =>
        readdirSync(`/proc/${pid}/task`).map((thread) => processorsOf(`/proc/${pid}/task/${thread}`))
      await until(() => threads().length === 3 && threads().every(({ size }) => size === own.size))
      expect((await running).outcome.status).toBe('ok')
    })

    function spin() {
      const calledAt = performance.now()
      const running = house.invoke('spin 400 3')
      const pid = house.pool.sandboxes().find(({ state }) => state === 'leased')?.hostPid
      const { size } = processorsOf(`/proc/${pid}`)
      const seenAfterMs = performance.now() - calledAt
      if (seenAfterMs < 1) expect(size).toBe(1)
      return { running, pid, seenAfterMs }
    }

    it('is left alone where another call runs', async () => {
      const long = house.invoke('sleep 300')
      const running = house.invoke('sleep 200')
      const leased = house.pool.sandboxes().filter(({ state }) => state === 'leased')
      expect(leased.map(({ hostPid }) => processorsOf(`/proc/${hostPid}`).size).toSorted()).toEqual(
        own.size === 1 ? [1, 1] : [1, own.size],
      )
      await Promise.all([long, running])
    })
  })

  describe('the group', () => {
    // One slot, so that each sandbox follows the last one in its group where the kernel lets it be kept.
    const house = useHouse({ slots: 1 }, { limits: { memoryBytes: 32 * MIB, pids: 8 }, pool: { min: 1, max: 1 } })

    it('of a call whose limits were lowered has the function’s for the next one', async () => {
      const low = await house.invoke('allocate 16', { limits: { memoryBytes: 8 * MIB, pids: 3, cpu: 0.1 } })
      expect(low.outcome.status).toBe('out_of_memory')
      await house.rest()
      const next = await house.invoke('allocate 16')
      expect(next.sandbox).not.toBe(low.sandbox)
      expect(next.outcome).toMatchObject({ status: 'ok' })
      // And no more than those.
      await house.rest()
      expect((await house.invoke('allocate 48')).outcome).toMatchObject({
        status: 'out_of_memory',
        limitBytes: 32 * MIB,
      })
    })

    it('tells the next call nothing of what the last one met', async () => {
      const forks = await house.invoke('fork 20')
      expect(forks.outcome.usage.pidsDeniedCount).toBeGreaterThan(0)
      await house.rest()
      const memory = await house.invoke('allocate 48')
      expect(memory.outcome.usage.oomKillCount).toBeGreaterThan(0)
      await house.rest()
      const { outcome } = await house.invoke('exit 3')
      expect(outcome).toMatchObject({ status: 'exited', exitCode: 3 })
      expect(outcome.usage).toMatchObject({ pidsDeniedCount: 0, oomKillCount: 0 })
      expect(outcome.usage.memoryPeakBytes).toBeLessThan(8 * MIB)
      expect(outcome.usage.cpuNs).toBeLessThan(50_000_000)
    })
  })
})

/** Which a process or thread may run on. */
function processorsOf(folder: string): Set<number> {
  const list = /^Cpus_allowed_list:\s+(.+)$/m.exec(readFileSync(`${folder}/status`, 'utf8'))?.[1] ?? ''
  const ranges = list.split(',').map((range) => range.split('-').map(Number))
  return new Set(
    ranges.flatMap(([first = 0, last = first]) => Array.from({ length: last - first + 1 }, (_, at) => first + at)),
  )
}
