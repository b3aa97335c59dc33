// How long a function outlives its deadline when it spins under a small CPU quota: its processes are throttled most of
// the time, and a throttled process must still die at once.
import { readFileSync } from 'node:fs'
import type { Pool } from '../../worker/pool.ts'
import { closePools, createPayloads } from '../bed.ts'
import { Latency, until } from '../measure.ts'
import { atMost, type Scenario, type Section } from '../scenario.ts'

const WALL_MS = 200
const CPU = 0.05
const MEDIAN_MS_MAX = 10
const FULL = 50
const QUICK = 3

export const kill: Scenario = {
  name: 'kill',
  help: 'a function that spins under a CPU quota of 5 %, from its deadline until it is gone',
  async run(context) {
    const total = context.isQuick ? QUICK : FULL
    const told = new Latency()
    const gone = new Latency()
    const pool = await context.bed.openPool(0, { slots: 4 })
    try {
      const limits = { cpu: CPU, wallMs: WALL_MS }
      const command = ['/guest', 'spin']
      await context.bed.deploy(pool, context.bed.spec({ name: 'spin', command, limits, pool: { min: 1, max: 2 } }))
      const nextPayload = createPayloads()
      for (let call = 0; call < total; call++) {
        const late = await spin(pool, nextPayload())
        told.recordMs(late.toldMs)
        gone.recordMs(late.goneMs)
        context.progress('kills', call + 1, total)
      }
    } finally {
      await closePools(pool)
    }
    return [describe(told, gone)]
  },
}

/** One call, and how long after its deadline its outcome was here and its process was not. */
async function spin(pool: Pool, payload: Buffer): Promise<{ toldMs: number; goneMs: number }> {
  await until(
    () => `a sandbox: ${JSON.stringify(pool.stats())}`,
    () => pool.stats().functions[0]?.ready === 1 && pool.sandboxes().length === 1,
  )
  const pid = pool.sandboxes()[0]?.hostPid ?? 0
  if (!isAlive(pid)) throw new Error(`process ${pid} should be there and is not`)
  const askedAt = performance.now()
  const running = pool.invoke('spin', payload)
  // The limit counts from the call's message, which has been sent by now.
  const deadline = askedAt + WALL_MS
  const { outcome } = await running
  const toldMs = performance.now() - deadline
  if (outcome.status !== 'timed_out' || outcome.clock !== 'wall') {
    throw new Error(`a function that spins ended as ${outcome.status}`)
  }
  if (outcome.usage.cpuNs === 0) throw new Error('a function that spins used no CPU time')
  await until(
    () => `process ${pid} to die`,
    () => !isAlive(pid),
  )
  return { toldMs, goneMs: performance.now() - deadline }
}

/** A zombie runs nothing and holds no memory. */
function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2))
  } catch {
    return false
  }
}

function describe(told: Latency, gone: Latency): Section {
  const medianMs = Math.max(told.summary.p50Us, gone.summary.p50Us) / 1000
  return {
    id: 'kill.deadline',
    title: `A function that spins under a CPU quota of ${CPU * 100} %, after its deadline of ${WALL_MS} ms`,
    method: 'one at a time; the deadline counts from before the call was sent',
    chart: 'latency',
    rows: [
      { name: 'deadline until the outcome', latency: told },
      { name: 'deadline until its process is gone', latency: gone },
    ],
    ratios: [atMost('kill under a quota of 5 %, deadline until gone, median in ms', medianMs, MEDIAN_MS_MAX)],
    notes: [],
  }
}
