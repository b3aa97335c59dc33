// Of processes: the sandbox's own pid namespace, its init, and what a function leaves running.
import { describe, expect, it } from 'vitest'
import { processesOfPool } from '../_host.ts'
import { privileged, useHouse } from '../_setup.ts'

const SIGKILL = 9
const SIGSYS = 31

privileged('processes', () => {
  describe('with every layer on', () => {
    const house = useHouse({}, { limits: { pids: 16, wallMs: 5000 } })

    it('is always process 2 of a namespace whose first is our init', async () => {
      for (let i = 0; i < 4; i++) expect(await house.row('ids')).toMatchObject({ pid: 2, ppid: 1 })
    })

    it('sees no process but its own', async () => {
      const { names } = (await house.row('list /proc')) as { names: string[] }
      expect(names.filter((name) => /^\d+$/.test(name) && name !== '1')).toEqual(['2'])
    })

    it('cannot read or write what its init holds', async () => {
      expect(await house.row('attack_init')).toMatchObject({
        mem: expect.stringMatching(/^(EACCES|ENOENT|EPERM)$/),
        environ: expect.stringMatching(/^(EACCES|ENOENT|EPERM)$/),
        fd: expect.stringMatching(/^(EACCES|ENOENT|EPERM)$/),
        exe: expect.stringMatching(/^(EACCES|ENOENT|EPERM)$/),
      })
    })

    it('is named and killed when it traces its init', async () => {
      const { outcome } = await house.invoke('call ptrace')
      expect(outcome).toMatchObject({ status: 'denied', syscall: 'ptrace' })
    })

    it('can signal its own children and neither init, a group nor everybody', async () => {
      expect(await house.row('signal_others')).toMatchObject({
        init_kill: 'EPERM',
        init_term: 'EPERM',
        init_stop: 'EPERM',
        group: 'EPERM',
        everybody: 'EPERM',
        beyond: 'ESRCH',
        child_died: 0,
        child_kill: 0,
      })
    })

    it('keeps the signals of a function apart from ours', async () => {
      expect((await house.invoke(`raise ${SIGKILL}`)).outcome).toMatchObject({ status: 'signaled', signal: 'SIGKILL' })
      expect((await house.invoke(`raise ${SIGSYS}`)).outcome).toMatchObject({ status: 'signaled', signal: 'SIGSYS' })
      expect((await house.invoke('exit 137')).outcome).toMatchObject({ status: 'exited', exitCode: 137 })
    })

    it('forks up to its limit and leaves none of them', async () => {
      const seen = await house.row('fork 100')
      expect(seen['last']).toBe('EAGAIN')
      // Init and the function count too.
      expect(seen['made']).toBe(14)
    })

    it('contains a fork bomb until its time is over', async () => {
      const { outcome } = await house.invoke('bomb', { limits: { wallMs: 300 } })
      expect(outcome).toMatchObject({ status: 'timed_out', clock: 'wall', limitMs: 300 })
      expect(outcome.usage.pidsDeniedCount).toBeGreaterThan(0)
    })

    it('ends the deaf as any other', async () => {
      const { outcome } = await house.invoke('sleep 60000 deaf', { limits: { wallMs: 200 } })
      expect(outcome).toMatchObject({ status: 'timed_out', limitMs: 200 })
    })

    it('completes by the end of the function and not of its streams', async () => {
      await house.deploy({ name: 'streams', contract: 'stdio', command: ['/probe', 'stdio'], pool: { min: 1, max: 1 } })
      const started = performance.now()
      const seen = await house.row('hold_streams', { name: 'streams' })
      expect(seen['row']).toBe('hold_streams')
      expect(performance.now() - started).toBeLessThan(5000)
      await house.pool.remove('streams')
    })

    it('runs nothing of the pool as root of the host', () => {
      expect(processesOfPool().every(({ uid }) => uid !== 0)).toBe(true)
    })
  })

  describe('without its pid namespace', () => {
    const house = useHouse({ ablate: ['pid_ns'] })

    it('is some process among the others', async () => {
      expect((await house.row('ids'))['pid']).not.toBe(2)
    })
  })

  describe('with an init that can be dumped', () => {
    const house = useHouse({ ablate: ['dumpable'] })

    it('reads and writes what its init holds', async () => {
      expect(await house.row('attack_init')).toMatchObject({ mem: 0, fd: 0 })
    })
  })

  describe('without the filter', () => {
    const house = useHouse({ ablate: ['seccomp'] })

    it('can send signals that the namespace keeps from doing harm', async () => {
      const seen = await house.row('signal_others')
      expect(seen).toMatchObject({ init_kill: 0, everybody: 0, child_died: 1 })
      expect(await house.row('ids')).toMatchObject({ pid: 2 })
    })
  })
})
