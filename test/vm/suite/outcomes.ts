// Each way in which a call can end.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { answerOf, expectStatus, FOREVER, MIB, world } from '../_world.ts'

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
