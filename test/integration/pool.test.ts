// The pool as a library: what a call gets, whatever its function does, and what the pool keeps of it.
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { openPool } from '../../worker/pool.ts'
import { UID_BASE } from '../_host.ts'
import { openHouse, privileged, until, useHouse } from '../_setup.ts'

const MIB = 1024 * 1024

privileged('pool', () => {
  describe('outcomes', () => {
    const house = useHouse({}, { limits: { memoryBytes: 32 * MIB, wallMs: 5_000 } })

    it('tells five deaths apart that a shell would all call 137 or 159', async () => {
      const [exited, killed, sigsys, memory, denied] = await Promise.all([
        house.invoke('exit 137'),
        house.invoke('raise 9'),
        house.invoke('raise 31'),
        house.invoke('allocate 64'),
        house.invoke('call ptrace'),
      ])
      expect(exited.outcome).toMatchObject({ status: 'exited', exitCode: 137 })
      expect(killed.outcome).toMatchObject({ status: 'signaled', signal: 'SIGKILL' })
      expect(sigsys.outcome).toMatchObject({ status: 'signaled', signal: 'SIGSYS' })
      expect(memory.outcome).toMatchObject({ status: 'out_of_memory', limitBytes: 32 * MIB })
      expect(memory.outcome.usage.oomKillCount).toBeGreaterThan(0)
      expect(denied.outcome).toMatchObject({ status: 'denied', syscall: 'ptrace' })
    })

    it('ends a call that outlives its own, shorter deadline', async () => {
      const { outcome } = await house.invoke('sleep 60000', { limits: { wallMs: 50 } })
      expect(outcome).toMatchObject({ status: 'timed_out', clock: 'wall', limitMs: 50 })
    })

    it('cancels a call, and one that has not begun', async () => {
      const abort = new AbortController()
      const running = house.invoke('sleep 60000', { signal: abort.signal })
      await until(() => house.pool.sandboxes().some(({ state }) => state === 'leased'))
      abort.abort()
      expect((await running).outcome.status).toBe('cancelled')
      expect((await house.invoke('echo', { signal: AbortSignal.abort() })).outcome.status).toBe('cancelled')
    })

    it('tells what the function says failed', async () => {
      expect((await house.invoke('fail')).outcome.status).toBe('failed')
    })

    it('refuses to raise a limit, and lowers none below what the sandbox holds', async () => {
      await expect(house.invoke('echo', { limits: { memoryBytes: 64 * MIB } })).rejects.toMatchObject({
        code: 'INVALID_REQUEST',
      })
      const { outcome } = await house.invoke('echo', { limits: { memoryBytes: 8 * MIB, pids: 3 }, body: 'held' })
      expect(outcome.status).toBe('ok')
    })

    it('knows no function of another name', async () => {
      await expect(house.invoke('echo', { name: 'nobody' })).rejects.toMatchObject({ code: 'FUNCTION_NOT_FOUND' })
    })
  })

  describe('payloads', () => {
    const house = useHouse()

    for (const contract of ['link', 'stdio'] as const) {
      for (const start of ['eager', 'lazy'] as const) {
        it(`pass whole over ${contract}, ${start}, from nothing to 6 MiB`, async () => {
          const name = `${contract}-${start}`
          await house.deploy({ name, contract, start, command: ['/probe', contract], pool: { min: 1, max: 2 } })
          for (const bytes of [0, 1, 4095, 65_536, 131_072, 131_073, 1_000_000, 6 * MIB - 5]) {
            const body = randomBytes(bytes)
            const { outcome } = await house.invoke('echo', { name, body })
            if (outcome.status !== 'ok') throw new Error(`${bytes} bytes: ${JSON.stringify(outcome).slice(0, 300)}`)
            expect(Buffer.compare(outcome.output, body), `${bytes} bytes`).toBe(0)
          }
          await house.pool.remove(name)
          await until(() => house.pool.sandboxes().every((sandbox) => sandbox.function !== name))
        })
      }
    }

    it('are refused above 6 MiB', async () => {
      await expect(house.invoke('echo', { body: Buffer.alloc(6 * MIB) })).rejects.toMatchObject({
        code: 'PAYLOAD_TOO_LARGE',
      })
    })
  })

  describe('reuse', () => {
    const house = useHouse()

    for (const contract of ['link', 'stdio'] as const) {
      it(`serves the next call of a ${contract} function from the same sandbox, and never after a bad end`, async () => {
        const name = `reused-${contract}`
        const command = ['/probe', contract]
        await house.deploy({ name, contract, command, reuse: 'function', pool: { min: 1, max: 1 } })
        const first = await house.invoke('echo', { name, body: 'first' })
        await until(() => house.pool.stats().functions.some((one) => one.name === name && one.ready === 1))
        const second = await house.invoke('echo', { name, body: 'second', limits: { cpu: 0.5 } })
        expect(second).toMatchObject({ start: 'reused', sandbox: first.sandbox })
        expect(Buffer.from(second.outcome.status === 'ok' ? second.outcome.output : '').toString()).toBe('second')
        await until(() => house.pool.stats().functions.some((one) => one.name === name && one.ready === 1))
        await house.invoke('exit 3', { name })
        const fourth = await house.invoke('echo', { name })
        expect(fourth.sandbox).not.toBe(first.sandbox)
        await house.pool.remove(name)
        await until(() => house.pool.sandboxes().every((sandbox) => sandbox.function !== name))
      })
    }

    it('gives up a sandbox in which a call left a process running', async () => {
      await house.deploy({ name: 'forks', contract: 'link', reuse: 'function', pool: { min: 1, max: 1 } })
      const first = await house.invoke('hold_streams', { name: 'forks' })
      const second = await house.invoke('echo', { name: 'forks' })
      expect(second.sandbox).not.toBe(first.sandbox)
      await house.pool.remove('forks')
      await until(() => house.pool.sandboxes().every((sandbox) => sandbox.function !== 'forks'))
    })
  })

  describe('a program that cannot wait for its call', () => {
    const house = useHouse()

    for (const [how, command, says] of [
      ['exits', ['/probe', 'early', 'exit'], /exited with 3/],
      ['makes a forbidden call', ['/probe', 'early', 'denied'], /forbidden system call unshare/],
      ['is not there', ['/nothing'], /not in the image/],
      ['is no program', ['/folder/file'], /not executable|no program/],
    ] as const) {
      it(`is refused at deploy when it ${how}, with the reason`, async () => {
        const deployed = house.deploy({ name: 'broken', contract: 'link', command: [...command] })
        await expect(deployed).rejects.toMatchObject({ code: 'START_FAILED', message: expect.stringMatching(says) })
      })
    }

    it('is refused when it speaks on stdout', async () => {
      const deployed = house.deploy({ name: 'broken', contract: 'stdio', command: ['/probe', 'early', 'speak'] })
      await expect(deployed).rejects.toMatchObject({ code: 'START_FAILED', message: expect.stringMatching(/stdout/) })
    })
  })

  describe('lifecycle', () => {
    it('lets one pool at a time have a home', async () => {
      const house = await openHouse()
      try {
        await expect(openPool({ home: house.home, uidBase: UID_BASE })).rejects.toMatchObject({ code: 'HOME_BUSY' })
        expect(await house.row('status')).toBeDefined()
      } finally {
        await house.close()
      }
    })

    it('holds no descriptor once it is closed, nor when it could not be opened', async () => {
      const house = await openHouse()
      const open = () => readdirSync('/proc/self/fd').length
      const before = open()
      await expect(openPool({ home: house.home, uidBase: UID_BASE })).rejects.toMatchObject({ code: 'HOME_BUSY' })
      await until(() => open() === before)
      await house.close()
      const closed = open()
      const again = await openHouse()
      await again.close()
      await until(() => open() === closed)
    })

    it('refuses a host without limits, unless told to serve all the same', async () => {
      const refused = openHouse({ cgroup: 'none' })
      await expect(refused).rejects.toMatchObject({
        code: 'HOST_UNFIT',
        message: expect.stringMatching('--allow-degraded'),
      })
      const house = await openHouse({ cgroup: 'none', allowDegraded: true })
      try {
        expect(house.pool.host.cgroupMode).toBe('none')
        expect((await house.invoke('echo', { body: 'x' })).outcome.status).toBe('ok')
        expect((await house.invoke('sleep 60000', { limits: { wallMs: 50 } })).outcome.status).toBe('timed_out')
      } finally {
        await house.close()
      }
    })

    it('finishes what runs when it drains, takes nothing new, and cancels what is late', async () => {
      const house = await openHouse()
      try {
        const short = house.invoke('sleep 200')
        const long = house.invoke('sleep 60000')
        await until(() => house.pool.sandboxes().filter(({ state }) => state === 'leased').length === 2)
        const drained = house.pool.drain(1_000)
        await expect(house.invoke('echo')).rejects.toMatchObject({ code: 'DRAINING' })
        await drained
        expect((await short).outcome.status).toBe('ok')
        expect((await long).outcome.status).toBe('cancelled')
      } finally {
        await house.close()
      }
    })

    it('builds at once what a burst beyond the pool needs, and says that it did', async () => {
      const house = await openHouse({}, { pool: { min: 1, max: 8 } })
      try {
        const calls = await Promise.all(Array.from({ length: 8 }, () => house.invoke('echo', { body: 'x' })))
        expect(calls.every(({ outcome }) => outcome.status === 'ok')).toBe(true)
        expect(new Set(calls.map(({ sandbox }) => sandbox)).size).toBe(8)
        expect(calls.map(({ start }) => start).filter((start) => start === 'cold').length).toBeGreaterThan(0)
      } finally {
        await house.close()
      }
    })
  })
})
