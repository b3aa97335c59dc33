// Ten thousand calls: every answer right, every one from a sandbox of its own, and nothing left of any.
import { expect, it } from 'vitest'
import { privileged, useHouse } from '../_setup.ts'

const CALLS = 10_000
const CONCURRENCY = 8

privileged('load', () => {
  const house = useHouse({ slots: 64 }, { pool: { min: 16, max: 32 } })

  it('gives 10,000 calls at concurrency 8 their own sandboxes and right answers, and keeps nothing', async () => {
    // What V8 keeps of a warmed-up process is not a leak of the calls.
    await callMany(500, new Set())
    globalThis.gc?.()
    const before = process.memoryUsage().rss
    const sandboxes = new Set<string>()
    await callMany(CALLS, sandboxes)
    expect(sandboxes.size).toBe(CALLS)
    globalThis.gc?.()
    expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 * 1024)
  }, 180_000)

  async function callMany(count: number, sandboxes: Set<string>): Promise<void> {
    let next = 0
    const caller = async () => {
      for (let i = next++; i < count; i = next++) {
        const { outcome, sandbox } = await house.invoke('echo', { body: `call ${i}` })
        if (outcome.status !== 'ok') throw new Error(`call ${i}: ${JSON.stringify(outcome)}`)
        if (Buffer.from(outcome.output).toString() !== `call ${i}`) throw new Error(`call ${i} got another's answer`)
        sandboxes.add(sandbox)
      }
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, caller))
  }
})
