// Each limit of a manifest, reached from inside.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { answerOf, expectStatus, FOREVER, IS_V2_ONLY, MIB, text, world } from '../_world.ts'

/** The group of a ready sandbox of the one function there is. */
function groupOfReady(): string {
  const ready = world.pool.sandboxes().find(({ state }) => state === 'ready')
  assert.ok(ready !== undefined)
  const path = /^0::(.*)$/m.exec(readFileSync(`/proc/${ready.hostPid}/cgroup`, 'utf8'))?.[1]
  return `/sys/fs/cgroup${path}`
}

describe('limit', () => {
  if (IS_V2_ONLY) {
    it('stands in the group of a sandbox before any call', async () => {
      const limits = { cpu: 0.5, cpuWeight: 250, memoryBytes: 32 * MIB, pids: 20 }
      await world.withFunction({ limits }, async () => {
        const group = groupOfReady()
        const values = ['cpu.max', 'cpu.weight', 'memory.max', 'memory.swap.max', 'memory.oom.group', 'pids.max'].map(
          (file) => readFileSync(`${group}/${file}`, 'utf8').trim(),
        )
        const [quota, period] = values[0]?.split(' ').map(Number) ?? []
        assert.equal(Number(quota) / Number(period), 0.5)
        assert.deepEqual(values.slice(1), ['250', `${32 * MIB}`, '0', '1', '20'])
      })
    })
  }

  it('cpu throttles', async () => {
    await world.withFunction({ limits: { cpu: 0.1, wallMs: 1500 } }, async (call) => {
      const { usage } = expectStatus((await call('spin')).outcome, 'timed_out')
      assert.ok(usage.throttledCount > 0)
      assert.ok(usage.cpuNs < usage.wallNs, `${usage.cpuNs} ns of CPU in ${usage.wallNs}`)
    })
  })

  it('memoryBytes ends the sandbox, and not below it', async () => {
    await world.withFunction({ limits: { memoryBytes: 48 * MIB } }, async (call) => {
      const within = (await call(`alloc ${16 * MIB}`)).outcome
      assert.equal(answerOf(within), 'allocated')
      assert.ok(within.usage.memoryPeakBytes >= 16 * MIB, `peak ${within.usage.memoryPeakBytes}`)
      const over = expectStatus((await call(`alloc ${96 * MIB}`)).outcome, 'out_of_memory')
      assert.equal(over.limitBytes, 48 * MIB)
    })
  })

  it('memoryBytes counts what is written to /tmp', async () => {
    await world.withFunction({ limits: { memoryBytes: 32 * MIB, tmpBytes: 256 * MIB } }, async (call) => {
      expectStatus((await call(`write ${128 * MIB}`)).outcome, 'out_of_memory')
    })
  })

  it('pids refuses forks; a function that copes is ok, one that fails has hit the limit', async () => {
    await world.withFunction({ limits: { pids: 12 } }, async (call) => {
      const coped = (await call('forks 100')).outcome
      assert.ok(Number(answerOf(coped)) < 12)
      assert.ok(coped.usage.pidsDeniedCount > 0)
      const failed = expectStatus((await call('forks-or-fail 100')).outcome, 'limit_exceeded')
      assert.deepEqual([failed.limit, failed.max], ['pids', 12])
    })
  })

  it('wallMs ends a call', async () => {
    await world.withFunction({ limits: { wallMs: 300 } }, async (call) => {
      const { clock, limitMs } = expectStatus((await call(FOREVER)).outcome, 'timed_out')
      assert.deepEqual([clock, limitMs], ['wall', 300])
    })
  })

  it('cpuMs ends a call that computes', async () => {
    await world.withFunction({ limits: { cpuMs: 200 } }, async (call) => {
      const { clock, limitMs } = expectStatus((await call('spin')).outcome, 'timed_out')
      assert.deepEqual([clock, limitMs], ['cpu', 200])
    })
  })

  it('tmpBytes and tmpFiles fill up', async () => {
    await world.withFunction({ limits: { tmpBytes: MIB, tmpFiles: 64 } }, async (call) => {
      const [written, error] = answerOf((await call(`write ${4 * MIB}`)).outcome).split(' ')
      assert.equal(error, 'ENOSPC')
      assert.ok(Number(written) <= MIB)
      const [made, why] = answerOf((await call('files 1000')).outcome).split(' ')
      assert.equal(why, 'ENOSPC')
      assert.ok(Number(made) < 64)
    })
  })

  for (const contract of ['link', 'stdio'] as const) {
    it(`outputBytes ends a call over ${contract}`, async () => {
      await world.withFunction({ contract, limits: { outputBytes: 1000 } }, async (call) => {
        assert.equal(answerOf((await call('output 1000')).outcome).length, 1000)
        for (const bytes of [1001, 500_000, 64 * MIB]) {
          const { limit, max } = expectStatus((await call(`output ${bytes}`)).outcome, 'limit_exceeded')
          assert.deepEqual([limit, max], ['outputBytes', 1000])
        }
      })
    })

    it(`logBytes keeps the beginning over ${contract}`, async () => {
      await world.withFunction({ contract, limits: { logBytes: 1000 } }, async (call) => {
        const { outcome } = await call('log 500000')
        assert.equal(answerOf(outcome), 'logged')
        assert.equal(text(outcome.logs), 'l'.repeat(1000))
        assert.equal(outcome.logsTruncated, true)
      })
    })
  }

  it('openFiles refuses descriptors', async () => {
    await world.withFunction({ limits: { openFiles: 32 } }, async (call) => {
      const [opened, error] = answerOf((await call('descriptors 1000')).outcome).split(' ')
      assert.equal(error, 'EMFILE')
      assert.ok(Number(opened) < 32)
    })
  })

  it('can be lowered by a call and not raised', async () => {
    await world.withFunction({ limits: { wallMs: 60_000 } }, async (call) => {
      const lowered = await call(FOREVER, { limits: { wallMs: 200 } })
      assert.equal(expectStatus(lowered.outcome, 'timed_out').limitMs, 200)
      await assert.rejects(call('echo x', { limits: { wallMs: 60_001 } }), { code: 'INVALID_REQUEST' })
    })
  })
})
