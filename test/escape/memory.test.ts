// Of memory, processor and output: each ends at its limit, and the neighbour and this process feel nothing of it.
import { describe, expect, it } from 'vitest'
import { privileged, textOf, useHouse } from '../_setup.ts'

const MIB = 1024 * 1024

privileged('memory', () => {
  describe('with every layer on', () => {
    const house = useHouse(
      {},
      { limits: { memoryBytes: 32 * MIB, tmpBytes: 64 * MIB, wallMs: 10_000, logBytes: 4096 } },
    )

    it('dies whole when it takes more than it may, and says so', async () => {
      const { outcome } = await house.invoke('allocate 64')
      expect(outcome).toMatchObject({ status: 'out_of_memory', limitBytes: 32 * MIB })
      expect(outcome.usage.memoryPeakBytes).toBeGreaterThan(30 * MIB)
    })

    it('counts what it writes to a tmpfs as memory', async () => {
      expect((await house.invoke('fill_bytes /tmp/file 64')).outcome).toMatchObject({ status: 'out_of_memory' })
    })

    it('leaves no charge to its successor', async () => {
      for (let i = 0; i < 4; i++) expect(await house.row('allocate 20')).toMatchObject({ touched: 20 * MIB })
    })

    it('leaves its neighbour alone', async () => {
      const [hog, neighbour] = await Promise.all([house.invoke('allocate 64'), house.invoke('echo', { body: 'alive' })])
      expect(hog.outcome.status).toBe('out_of_memory')
      expect(textOf(neighbour.outcome)).toBe('alive')
    })

    it('keeps to its share of the processor, whatever it starts', async () => {
      const { outcome } = await house.invoke('spin -1 8', { limits: { cpu: 0.5, wallMs: 1000 } })
      expect(outcome).toMatchObject({ status: 'timed_out', clock: 'wall' })
      expect(outcome.usage.cpuNs).toBeLessThan(0.5 * 1.3 * 1e9)
      expect(outcome.usage.throttledCount).toBeGreaterThan(0)
    })

    it('ends when its processor time is used up', async () => {
      const { outcome } = await house.invoke('spin', { limits: { cpuMs: 200 } })
      expect(outcome).toMatchObject({ status: 'timed_out', clock: 'cpu', limitMs: 200 })
    })

    it('ends when its result is longer than it may be', async () => {
      const { outcome } = await house.invoke('output 100000', { limits: { outputBytes: 1000 } })
      expect(outcome).toMatchObject({ status: 'limit_exceeded', limit: 'outputBytes', max: 1000 })
    })

    it('logs as much as it likes and keeps what it may', async () => {
      const before = process.memoryUsage().rss
      const { outcome } = await house.invoke(`log ${64 * MIB}`)
      expect(outcome).toMatchObject({ status: 'ok', logsTruncated: true })
      expect(outcome.logs.length).toBe(4096)
      expect(process.memoryUsage().rss - before).toBeLessThan(32 * MIB)
    })
  })

  describe('without its cgroup', () => {
    const house = useHouse({ ablate: ['cgroup'] }, { limits: { memoryBytes: 32 * MIB } })

    it('takes more than it may', async () => {
      expect(await house.row('allocate 64')).toMatchObject({ touched: 64 * MIB })
    })
  })
})
