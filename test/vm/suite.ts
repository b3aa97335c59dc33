// Start-up, leases, every limit and every outcome, on whatever host this runs: test/vm/run.ts runs it on a stock kernel
// with cgroup v2, as root and as an ordinary user. For node's own runner: vitest takes ten times longer to start there.
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { after, before, describe, it } from 'node:test'
import type { Outcome, OutcomeStatus } from '../../contract/outcome.ts'
import { openWorld, processes, until, type World } from './_world.ts'

const MIB = 1024 * 1024
const SIX_MIB = 6 * MIB
/** Longer than any test runs: what such a call does is ended by us. */
const FOREVER = 'sleep 900000'

/** On others the controllers have other files, and test/integration looks at them. */
const IS_V2_ONLY = existsSync('/sys/fs/cgroup/cgroup.controllers')

let world: World
before(async () => {
  world = await openWorld()
})
after(() => world.close())

/** Narrows, and shows the whole outcome where it is another one. */
function expectStatus<S extends OutcomeStatus>(outcome: Outcome, status: S): Extract<Outcome, { status: S }> {
  assert.equal(outcome.status, status, JSON.stringify({ ...outcome, logs: text(outcome.logs) }).slice(0, 500))
  return outcome as Extract<Outcome, { status: S }>
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString()
const answerOf = (outcome: Outcome) => text(expectStatus(outcome, 'ok').output).trimEnd()

/** The group of a ready sandbox of the one function there is. */
function groupOfReady(): string {
  const ready = world.pool.sandboxes().find(({ state }) => state === 'ready')
  assert.ok(ready !== undefined)
  const path = /^0::(.*)$/m.exec(readFileSync(`/proc/${ready.hostPid}/cgroup`, 'utf8'))?.[1]
  return `/sys/fs/cgroup${path}`
}

describe('start-up', () => {
  it('takes the cgroup version of this host', () => {
    const expected = IS_V2_ONLY ? ['v2'] : ['v1', 'hybrid']
    assert.ok(expected.includes(world.pool.host.cgroupMode), world.pool.host.cgroupMode)
  })

  it('leaves nobody of the house with an id of the host’s root', async () => {
    await world.withFunction({}, async () => {
      const house = processes().filter(({ name }) => /^(?:mayfly-sandboxd|mayfly-init|limits)/.test(name))
      assert.ok(house.length > 0)
      for (const { uids, name } of house) assert.ok(!uids.includes(0), `${name} has ids ${uids}`)
    })
  })

  it('works again over the state of an earlier life', async () => {
    const first = world.pool.stats().instance
    await world.reopen()
    assert.notEqual(world.pool.stats().instance, first)
    await world.withFunction({}, async (call) => assert.equal(answerOf((await call('echo again')).outcome), 'again'))
  })

  for (const mode of ['early-exit', 'early-output'] as const) {
    it(`refuses a function with ${mode} before any call`, async () => {
      const contract = mode === 'early-output' ? 'stdio' : 'link'
      const deployed = world.deploy({ contract, command: ['/limits', mode] })
      await assert.rejects(deployed, { code: 'START_FAILED' })
    })
  }

  it('refuses a command that the image does not have', async () => {
    await assert.rejects(world.deploy({ command: ['/missing'] }), { code: 'START_FAILED' })
  })
})

describe('lease', () => {
  for (const contract of ['link', 'stdio'] as const) {
    it(`gives each call over ${contract} a sandbox of its own`, async () => {
      await world.withFunction({ contract }, async (call) => {
        const calls = Array.from({ length: 24 }, (_, index) => call(`echo ${index}`))
        const replies = await Promise.all(calls)
        assert.deepEqual(
          replies.map(({ outcome }) => answerOf(outcome)),
          replies.map((_, index) => `${index}`),
        )
        assert.equal(new Set(replies.map(({ sandbox }) => sandbox)).size, replies.length)
      })
    })

    it(`carries 0 bytes to 6 MiB over ${contract}, whatever they are`, async () => {
      await world.withFunction({ contract }, async (call) => {
        for (const size of [0, 1, 131_067, 131_072, 131_073, 1_000_003, SIX_MIB - 5]) {
          const bytes = Buffer.from(Uint8Array.from({ length: size }, (_, index) => (index * 131) >> 3))
          const { outcome } = await call(Buffer.concat([Buffer.from('echo '), bytes]))
          assert.ok(bytes.equals(expectStatus(outcome, 'ok').output), `${size} bytes came back changed`)
        }
      })
    })
  }

  it('builds at once when nothing is ready, and says so', async () => {
    await world.withFunction({ pool: { min: 0, max: 2 } }, async (call) => {
      // Deploying builds one, to see that the program starts.
      await call('echo x')
      assert.equal((await call('echo x')).start, 'cold')
    })
  })

  it('takes a ready sandbox when there is one', async () => {
    await world.withFunction({ pool: { min: 2, max: 2 } }, async (call) => {
      assert.equal((await call('echo x')).start, 'pooled')
    })
  })

  it('keeps a sandbox for the next call only when the function asks for it', async () => {
    await world.withFunction({ reuse: 'function', pool: { min: 1, max: 1 } }, async (call) => {
      const first = await call('echo x')
      await until('the sandbox is ready again', () => world.pool.sandboxes().some(({ state }) => state === 'ready'))
      const second = await call('echo x')
      assert.equal(second.start, 'reused')
      assert.equal(second.sandbox.split('-').slice(0, -1).join('-'), first.sandbox.split('-').slice(0, -1).join('-'))
    })
  })

  it('starts a lazy program at the call', async () => {
    await world.withFunction({ contract: 'stdio', start: 'lazy' }, async (call) => {
      assert.equal(answerOf((await call('echo late')).outcome), 'late')
    })
  })
})

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

describe('outcome', () => {
  for (const contract of ['link', 'stdio'] as const) {
    it(`tells the deaths over ${contract} apart`, async () => {
      await world.withFunction({ contract, limits: { memoryBytes: 32 * MIB, wallMs: 20_000 } }, async (call) => {
        const outcomeOf = async (payload: string) => (await call(payload)).outcome
        assert.equal(expectStatus(await outcomeOf('exit 137'), 'exited').exitCode, 137)
        assert.equal(expectStatus(await outcomeOf('raise 9'), 'signaled').signal, 'SIGKILL')
        assert.equal(expectStatus(await outcomeOf('raise 31'), 'signaled').signal, 'SIGSYS')
        assert.equal(expectStatus(await outcomeOf('segv'), 'signaled').signal, 'SIGSEGV')
        assert.equal(expectStatus(await outcomeOf('ptrace'), 'denied').syscall, 'ptrace')
        expectStatus(await outcomeOf(`alloc ${96 * MIB}`), 'out_of_memory')
        expectStatus((await call(FOREVER, { limits: { wallMs: 200 } })).outcome, 'timed_out')
        expectStatus((await call(FOREVER, { signal: AbortSignal.timeout(200) })).outcome, 'cancelled')
      })
    })
  }

  it('is failed with the function’s own words', async () => {
    await world.withFunction({}, async (call) => {
      assert.equal(expectStatus((await call('fail no such page')).outcome, 'failed').message, 'no such page')
    })
  })

  it('is failed where the answer is no frame', async () => {
    await world.withFunction({}, async (call) => void expectStatus((await call('garbage')).outcome, 'failed'))
  })

  it('is exited where a link function ends without an answer', async () => {
    await world.withFunction({}, async (call) => {
      assert.equal(expectStatus((await call('exit 0')).outcome, 'exited').exitCode, 0)
    })
  })

  it('does not wait for a child that holds the descriptors open', async () => {
    await world.withFunction({ contract: 'stdio' }, async (call) => {
      assert.equal(answerOf((await call('orphan')).outcome), 'left')
    })
  })
})

describe('sandbox', () => {
  it('shows the function itself as an ordinary user, below an init of ours', async () => {
    await world.withFunction({}, async (call) => {
      assert.match(answerOf((await call('ids')).outcome), /^uid=1000 gid=1000 pid=([2-9]|\d\d+) ppid=1$/)
    })
  })

  it('gives no capability and takes none', async () => {
    await world.withFunction({}, async (call) => {
      const status = answerOf((await call('read /proc/self/status')).outcome)
      const sets = [...status.matchAll(/^Cap\w+:\t(\w+)$/gm)].map(([, set]) => set)
      assert.deepEqual(sets, Array(5).fill('0'.repeat(16)))
      assert.match(status, /^NoNewPrivs:\t1$/m)
      assert.match(status, /^Seccomp:\t2$/m)
    })
  })

  it('lets no user namespace be made', async () => {
    await world.withFunction({}, async (call) => {
      assert.equal(expectStatus((await call('unshare-user')).outcome, 'denied').syscall, 'unshare')
    })
  })

  it('lets an image’s writable folder be emptied, refilled and renamed', async () => {
    await world.withFunction({}, async (call) => {
      const payload = [
        'stat /data/folder',
        'rmtree /data/folder',
        'list /data',
        'mkdir /data/folder',
        'list /data/folder',
        'rename /data/folder /data/other',
        'touch /data/other/file',
        'rmtree /data/file',
        'list /data',
      ]
      const answer = answerOf((await call(payload.join('\n'))).outcome)
      const expected = ['0:0 40777', 'ok', '. .. file ', 'ok', '. .. ', 'ok', 'ok', 'ok', '. .. other']
      assert.deepEqual(answer.split('\n'), expected)
    })
  })

  it('keeps the rest of an image as it is, and shows it whole to the next call', async () => {
    await world.withFunction({}, async (call) => {
      const refused = answerOf((await call('rmtree /fixed/file\ntouch /fixed/new\nmkdir /new\nstat /limits')).outcome)
      assert.deepEqual(refused.split('\n'), ['EACCES', 'EACCES', 'EACCES', '0:0 100755'])
      await call('rmtree /data/folder\ntouch /tmp/left')
      const next = answerOf((await call('list /data\nlist /tmp')).outcome)
      assert.deepEqual(
        next.split('\n').map((line) => line.trim()),
        ['. .. file folder', '. ..'],
      )
    })
  })

  it('takes every process it had with it', async () => {
    await world.withFunction({ pool: { min: 0, max: 4 } }, async (call) => {
      await call('forks 10')
      await until('no process of the guest is left', () => processes().every(({ name }) => name !== 'limits'))
    })
  })
})

describe('end', () => {
  it('of sandboxd takes every sandbox with it, is told, and the next life starts clean', async () => {
    await world.deploy({ pool: { min: 4, max: 4 } })
    const isOfHouse = ({ name }: { name: string }) => name === 'limits' || name.startsWith('mayfly-sandboxd')
    const sandboxd = processes().find(({ name }) => name.startsWith('mayfly-sandboxd'))
    assert.ok(sandboxd !== undefined)
    const { closed } = world.pool
    process.kill(sandboxd.pid, 'SIGKILL')
    assert.equal((await closed)?.code, 'SANDBOXD_LOST')
    await until('nothing of the house runs', () => !processes().some(isOfHouse))
    await world.reopen()
    await world.withFunction({}, async (call) => assert.equal(answerOf((await call('echo back')).outcome), 'back'))
  })

  it('of the pool leaves no process and no group', async () => {
    const { instance } = world.pool.stats()
    await world.pool.close()
    await until('nothing of the house runs', () => !processes().some(({ name }) => name.startsWith('mayfly-')))
    const groups = readdirSync('/sys/fs/cgroup', { recursive: true, encoding: 'utf8' })
    assert.deepEqual(
      groups.filter((group) => group.includes(instance)),
      [],
    )
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    assert.ok(!mounts.includes('overlay'), mounts)
    await world.reopen()
  })
})
