// Of the channel: what a function sends is judged and not believed, and a lie ends its own call and nothing else.
import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { PlatformError } from '../../contract/errors.ts'
import { privileged, textOf, useHouse } from '../_setup.ts'

const MIB = 1024 * 1024
const LIES = [
  ...['wrong_kind', 'wrong_version', 'hosts_kind', 'reserved_set', 'unknown_flags', 'length_above', 'length_below'],
  ...['length_huge', 'half_header', 'memfd_unasked', 'buffer_with_payload', 'memfd_longer_than_buffer', 'buffer_twice'],
]
/** Neither says anything wrong: they ask for more than there is. */
const GREED = ['buffer_huge', 'buffer_over_limit']

privileged('channel', () => {
  const house = useHouse({}, { limits: { wallMs: 5000, memoryBytes: 64 * MIB } })

  it.each(LIES)('a function that lies with %s has failed', async (lie) => {
    const { outcome } = await house.invoke(`lie ${lie}`)
    expect(outcome.status).toBe('failed')
  })

  it.each(GREED)('a function that asks with %s is over its limit', async (lie) => {
    const { outcome } = await house.invoke(`lie ${lie}`)
    expect(outcome).toMatchObject({ status: 'limit_exceeded', limit: 'outputBytes' })
  })

  it.each(['ends_channel', 'closes_channel', 'nothing_at_all'])(
    'a function that falls silent with %s and lives on ends all the same',
    async (lie) => {
      const { outcome } = await house.invoke(`lie ${lie}`, { limits: { wallMs: 1000 } })
      expect(['failed', 'timed_out']).toContain(outcome.status)
    },
  )

  it('answers after the first are nobody’s', async () => {
    for (let i = 0; i < 8; i++) {
      const { outcome } = await house.invoke('answer_again 5')
      expect(textOf(outcome)).toBe('right')
    }
  })

  it('a function’s own failure is told in its words', async () => {
    const { outcome } = await house.invoke('fail', { body: 'no such word' })
    expect(outcome).toMatchObject({ status: 'failed', message: 'no such word' })
  })

  it.each([0, 1, 131_000, 131_073, 2 * MIB, 6 * MIB - 64])('%d bytes come back as they went', async (length) => {
    const body = randomBytes(length)
    const { outcome } = await house.invoke('echo', { body })
    if (outcome.status !== 'ok') expect.fail(JSON.stringify(outcome))
    expect(Buffer.compare(outcome.output, body)).toBe(0)
  })

  describe('before its first call', () => {
    it.each([
      ['exit', /3/],
      ['denied', /unshare/],
    ])('a function that would %s is not deployed', async (how, why) => {
      const manifest = { name: 'early', contract: 'link' as const, command: ['/probe', 'early', how] }
      const error = await house.deploy({ ...manifest, pool: { min: 1, max: 1 } }).then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      expect(error).toBeInstanceOf(PlatformError)
      expect((error as PlatformError).code).toBe('START_FAILED')
      expect((error as PlatformError).message).toMatch(why)
    })
  })
})
