// What people would call from Node instead of Mayfly: how long a call takes one at a time, and how many a second eight
// callers get, each beside what it keeps apart and what is fresh.
import type { Bed } from '../bed.ts'
import { createPayloads } from '../bed.ts'
import { higher, lower, MachineTime } from '../measure.ts'
import { CALLED_PEERS } from '../peers/called.ts'
import { type OpenCallee, openCallees } from '../peers/callee.ts'
import { atMost, type Figure, type Ratio, type Row, type Scenario, type Section } from '../scenario.ts'
import { burst, Contender, takeTurns } from './lease-contender.ts'
import { type OpenPools, openPools, type Plan } from './lease-pools.ts'

const CALLERS = 8
const FULL = { rounds: 20, warmUpRounds: 2, calls: 20, slowCalls: 2, lead: 3, loadMs: 1000, ready: 48 }
const QUICK = { rounds: 2, warmUpRounds: 1, calls: 4, slowCalls: 1, lead: 0, loadMs: 150, ready: 12 }
/** Between turns, for what the last one left to be done. */
const REST_MS = 5
const FRESH = 'Mayfly, a fresh sandbox'
const REUSED = 'Mayfly, reuse: function'
/** Those that run a function of their own for each call too. */
const COMPARED = ['child_process.spawn, a static binary', 'isolated-vm, a fresh isolate']

export const nodePeers: Scenario = {
  name: 'node-peers',
  help: 'what people would call from Node: child processes, worker threads, isolates, workerd, go-judge, hono',
  async run(context) {
    const sizes = context.isQuick ? QUICK : FULL
    const { open, notes } = await openCallees(CALLED_PEERS, context.bed, createPayloads()())
    let pools: OpenPools | undefined
    try {
      pools = await openPools(context.bed, plansOf(sizes.ready))
      const contenders = [...pools.contenders, ...open.map((one) => new PeerContender(context.bed, one))]
      const turns = { what: 'calls', rounds: sizes.rounds, warmUpRounds: sizes.warmUpRounds, restMs: REST_MS }
      await takeTurns(contenders, context, turns, (contender, isTimed) => {
        const isSlow = contender instanceof PeerContender && contender.isSlow
        const size = isSlow ? { calls: sizes.slowCalls, lead: 0 } : { calls: sizes.calls, lead: sizes.lead }
        return burst(contender, { ...size, isTimed })
      })
      const rows: Row[] = []
      for (const contender of contenders) {
        rows.push({ ...contender.row, figures: await load(contender, sizes.loadMs) })
        context.progress('eight callers', rows.length, contenders.length)
      }
      return [describe(rows, sizes, notes)]
    } finally {
      await Promise.all([pools?.close(), ...open.map(({ callee }) => callee.close())])
    }
  },
}

class PeerContender extends Contender {
  readonly isSlow: boolean
  readonly #bed: Bed
  readonly #one: OpenCallee

  constructor(bed: Bed, one: OpenCallee) {
    super(one.peer)
    this.isSlow = one.peer.isSlow === true
    this.#bed = bed
    this.#one = one
  }

  async call(payload: Buffer): Promise<number> {
    const askedAt = performance.now()
    const { ms, answer } = await this.#one.callee.call(payload)
    const took = ms ?? performance.now() - askedAt
    this.#bed.checkBytes(this.name, answer, payload)
    return took
  }

  /** Nothing of a call of theirs is put off. */
  async rest(): Promise<void> {}
}

function plansOf(ready: number): Plan[] {
  const about = { layers: 'all', program: 'echo', start: 'fresh', isolated: 'all of it' } as const
  const pool = { min: ready, max: ready * 2 }
  const reused = { min: CALLERS, max: CALLERS }
  return [
    { ...about, name: FRESH, fresh: 'all of it', manifest: { contract: 'link', pool } },
    { ...about, name: REUSED, fresh: '-', manifest: { contract: 'link', pool: reused, reuse: 'function' } },
  ]
}

/** Eight callers, each asking again when it has its answer. */
async function load(contender: Contender, loadMs: number): Promise<Record<string, Figure>> {
  await contender.rest()
  const machine = new MachineTime()
  let calls = 0
  machine.start()
  const startedAt = performance.now()
  const caller = async () => {
    const nextPayload = createPayloads()
    while (performance.now() - startedAt < loadMs) {
      // A copy, since a slow peer may still be reading it.
      await contender.call(Buffer.from(nextPayload()))
      calls += 1
    }
  }
  await Promise.all(Array.from({ length: CALLERS }, caller))
  const seconds = (performance.now() - startedAt) / 1000
  // What is put off until later belongs to the calls too.
  await contender.rest()
  const cpuUs = machine.stop()
  return { 'calls at 8': higher(calls / seconds, '/s'), 'CPU per call': lower(cpuUs / calls, 'µs') }
}

function describe(rows: readonly Row[], sizes: typeof FULL, notes: readonly string[]): Section {
  const p50Of = (name: string) => rows.find((row) => row.name === name)?.latency?.p50Us
  const over = (name: string): Ratio => {
    const [own, other] = [p50Of(FRESH), p50Of(name)]
    return atMost(`pooled fresh call over ${name}, p50`, own && other && own / other)
  }
  return {
    id: 'peers.call',
    title: 'What people would call from Node instead: an echo of 256 bytes',
    method:
      `a call at a time, back to back, in ${sizes.rounds} turns of ${sizes.calls} each, ${sizes.slowCalls} of a slow one; ` +
      `then ${CALLERS} callers at once for ${sizes.loadMs} ms, with the time of all processors until all is at rest`,
    chart: 'latency',
    rows,
    ratios: COMPARED.map(over),
    notes: [
      `${CALLERS} callers empty the pool: from there on a fresh sandbox is as fast as it is built`,
      'isolated-vm is timed inside the Node that it needs, without the way there; its calls per second include it',
      ...notes,
    ],
  }
}
