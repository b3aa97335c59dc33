// How a pool starts, and what sandbox a call gets.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { answerOf, expectStatus, IS_V2_ONLY, MIB, processesOf, until, world } from '../_world.ts'

describe('start-up', () => {
  it('takes the cgroup version of this host', () => {
    const expected = IS_V2_ONLY ? ['v2'] : ['v1', 'hybrid']
    assert.ok(expected.includes(world.pool.host.cgroupMode), world.pool.host.cgroupMode)
  })

  it('leaves nobody of the house with an id of the host’s root', async () => {
    await world.withFunction({}, async () => {
      const house = processesOf(world.pool.host.instance)
      // sandboxd, an init and a function.
      assert.ok(house.length >= 3, JSON.stringify(house))
      for (const { uids, name } of house) assert.ok(!uids.includes(0), `${name} has ids ${uids}`)
    })
  })

  it('works again over the state of an earlier life', async () => {
    const first = world.pool.host.instance
    await world.reopen()
    assert.notEqual(world.pool.host.instance, first)
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
        for (const size of [0, 1, 131_067, 131_072, 131_073, 1_000_003, 6 * MIB - 5]) {
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
