// A call that finds no sandbox: it is built, answers and is gone, beside what people would run instead, the same
// binary in each.
import type { Pool } from '../../worker/pool.ts'
import { closePools, createPayloads } from '../bed.ts'
import { Latency, until } from '../measure.ts'
import { bwrap } from '../peers/bwrap.ts'
import { openPeers, type RunningPeer } from '../peers/peer.ts'
import { plain } from '../peers/plain.ts'
import { unshare } from '../peers/unshare.ts'
import { atMost, type Context, type Ratio, type Row, type Section } from '../scenario.ts'

const FULL = { rounds: 300, warmUpRounds: 20 }
const QUICK = { rounds: 5, warmUpRounds: 1 }
/** Ours is faster than what people would run to the same end; unshare(1) limits nothing and keeps the host's root. */
const OVER_BWRAP_MAX = 1

/** One sandbox or process, from nothing until its answer is here; resolves when it is gone. */
interface Contender extends Omit<Row, 'latency'> {
  readonly latency: Latency
  once(payload: Buffer): Promise<number>
}

export async function miss(context: Context): Promise<Section> {
  const { bed, isQuick } = context
  const sizes = isQuick ? QUICK : FULL
  const nextPayload = createPayloads()
  const pool = await bed.openPool(0, { slots: 8 })
  let peers: readonly RunningPeer[] = []
  try {
    await deployWithoutReady(pool, context, nextPayload())
    const { running, notes } = await openPeers([bwrap, unshare, plain(bed.root)], bed, nextPayload())
    peers = running
    const contenders = [ours(pool, context), ...running.map((peer) => theirs(peer, context))]
    const total = sizes.warmUpRounds + sizes.rounds
    for (let round = 0; round < total; round++) {
      const order = round % 2 === 0 ? contenders : contenders.toReversed()
      for (const contender of order) {
        const ms = await contender.once(nextPayload())
        if (round >= sizes.warmUpRounds) contender.latency.recordMs(ms)
      }
      context.progress('misses', round + 1, total)
    }
    return describe(contenders, notes)
  } finally {
    for (const peer of peers) peer.close()
    await closePools(pool)
  }
}

/** Deploying builds one to find out whether the program starts; its call is not a miss. */
async function deployWithoutReady(pool: Pool, { bed }: Context, payload: Buffer): Promise<void> {
  await bed.deploy(pool, bed.spec({ name: 'once', command: ['/guest', 'once'], pool: { min: 0, max: 8 } }))
  bed.check(await pool.invoke('once', payload), payload, 'pooled')
  await allGone(pool)
}

function ours(pool: Pool, { bed }: Context): Contender {
  return {
    name: 'Mayfly, none ready',
    isolated: 'all of it',
    fresh: 'all of it',
    latency: new Latency(),
    async once(payload) {
      const askedAt = performance.now()
      const invocation = await pool.invoke('once', payload)
      const ms = performance.now() - askedAt
      bed.check(invocation, payload, 'cold')
      await allGone(pool)
      return ms
    },
  }
}

function theirs(running: RunningPeer, { bed }: Context): Contender {
  const { name, isolated, fresh } = running.peer
  return {
    name,
    isolated,
    fresh,
    latency: new Latency(),
    async once(payload) {
      const { ms, answer } = await running.call(payload)
      bed.checkBytes(name, answer, payload)
      return ms
    },
  }
}

async function allGone(pool: Pool): Promise<void> {
  const isEmpty = () => {
    const { slots } = pool.stats()
    return slots.cold === slots.total
  }
  await until(() => `the sandbox to be gone: ${JSON.stringify(pool.sandboxes())}`, isEmpty)
}

function describe(contenders: readonly Contender[], notes: readonly string[]): Section {
  const rows = contenders.map(({ once: _, ...row }) => row)
  const [own] = rows
  const over = (name: string, bound?: number): Ratio => {
    const other = rows.find((row) => row.name === name)
    const value = own && other && own.latency.summary.p50Us / other.latency.summary.p50Us
    return atMost(`cold miss over ${name}, p50`, value, bound)
  }
  return {
    id: 'lease.miss',
    title: 'A call that finds none: built, started and answered, 256 bytes',
    method:
      'from asking until the answer is in JavaScript, one at a time, in turns, each when the one before is gone; ' +
      'peers are started by a small spawner (posix_spawn, no fork of Node) and answer over a socket straight to Node',
    chart: 'latency',
    rows,
    ratios: [over(bwrap.name, OVER_BWRAP_MAX), over(unshare.name)],
    notes,
  }
}
