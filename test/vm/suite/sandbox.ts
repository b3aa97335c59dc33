// What a sandbox is from inside, above all where an old kernel's overlay needs our help.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { answerOf, expectStatus, processesOf, until, world } from '../_world.ts'

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
      await until('only sandboxd and its nursery are left', () => processesOf(world.pool.host.instance).length === 2)
    })
  })
})
