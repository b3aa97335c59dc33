// What is left when sandboxd dies and when the pool is closed.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { answerOf, processesOf, until, world } from '../_world.ts'

describe('end', () => {
  it('of sandboxd takes every sandbox with it, is told, and the next life starts clean', async () => {
    await world.deploy({ pool: { min: 4, max: 4 } })
    const { instance } = world.pool.host
    // Its inits have its name too, and /proc lists the parent first.
    const sandboxd = processesOf(instance).find(({ name }) => name === 'mayfly-sandboxd')
    assert.ok(sandboxd !== undefined)
    const { closed } = world.pool
    process.kill(sandboxd.pid, 'SIGKILL')
    assert.equal((await closed)?.code, 'SANDBOXD_LOST')
    await until('nothing of the house runs', () => processesOf(instance).length === 0)
    await world.reopen()
    await world.withFunction({}, async (call) => assert.equal(answerOf((await call('echo back')).outcome), 'back'))
  })

  it('of the pool leaves no process and no group', async () => {
    const { instance } = world.pool.host
    await world.pool.close()
    await until('nothing of the house runs', () => processesOf(instance).length === 0)
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
