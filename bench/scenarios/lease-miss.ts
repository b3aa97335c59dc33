// A call that finds no sandbox: it is built, answers and is gone, beside what people would run instead, the same
// binary in each.
import type { FunctionSpec } from '../../contract/function.ts'
import type { Pool } from '../../worker/pool.ts'
import { type Bed, closePools, createPayloads } from '../bed.ts'
import { coldPeers } from '../peers/cold.ts'
import { isInRound, openPeers, type RunningPeer } from '../peers/peer.ts'
import { deployEmpty, untilEmpty } from '../rest.ts'
import { atMost, type Context, type Ratio, type Row, type Section } from '../scenario.ts'
import { Contender } from './lease-contender.ts'
import { over } from './lease-link.ts'

const FULL = { rounds: 200, warmUpRounds: 10 }
const QUICK = { rounds: 4, warmUpRounds: 1 }
const POOL = { min: 0, max: 8 }

export async function miss(context: Context): Promise<Section> {
  const { bed, isQuick, progress } = context
  const { rounds, warmUpRounds } = isQuick ? QUICK : FULL
  const nextPayload = createPayloads()
  const pool = await bed.openPool(0, { slots: POOL.max })
  let peers: readonly RunningPeer[] = []
  try {
    const own = await openOwn(bed, pool)
    const { running, notes } = await openPeers(coldPeers(bed), bed, nextPayload())
    peers = running
    const contenders = [...own, ...running.map((peer) => new ColdPeer(bed, peer))]
    const total = warmUpRounds + rounds
    for (let round = 0; round < total; round++) {
      const order = round % 2 === 0 ? contenders : contenders.toReversed()
      for (const contender of order.filter((one) => one.isIn(round, total))) {
        const ms = await contender.call(nextPayload())
        await contender.rest()
        if (round >= warmUpRounds) contender.latency.recordMs(ms)
      }
      progress('misses', round + 1, total)
    }
    return describe(
      contenders.map(({ row }) => row),
      notes,
    )
  } finally {
    for (const peer of peers) peer.close()
    await closePools(pool)
  }
}

/** One sandbox or process, from nothing until its answer is here. */
abstract class ColdContender extends Contender {
  abstract isIn(round: number, rounds: number): boolean
}

async function openOwn(bed: Bed, pool: Pool): Promise<ColdSandbox[]> {
  const specs: readonly [string, FunctionSpec][] = [
    ['Mayfly, none ready', bed.spec({ name: 'once', command: ['/guest', 'once'], pool: POOL })],
    ['Mayfly, stdio', bed.spec({ name: 'stdio', command: ['/stdio'], contract: 'stdio', pool: POOL })],
    [
      'Mayfly, stdio, lazy',
      bed.spec({ name: 'lazy', command: ['/stdio'], contract: 'stdio', start: 'lazy', pool: POOL }),
    ],
  ]
  for (const [, spec] of specs) await deployEmpty(bed, pool, spec)
  return specs.map(([name, spec]) => new ColdSandbox(bed, pool, { name, function: spec.name }))
}

class ColdSandbox extends ColdContender {
  readonly #bed: Bed
  readonly #pool: Pool
  readonly #function: string

  constructor(bed: Bed, pool: Pool, about: { readonly name: string; readonly function: string }) {
    super({ name: about.name, isolated: 'all of it', fresh: 'all of it' })
    this.#bed = bed
    this.#pool = pool
    this.#function = about.function
  }

  override isIn(): boolean {
    return true
  }

  override async call(payload: Buffer): Promise<number> {
    const askedAt = performance.now()
    const invocation = await this.#pool.invoke(this.#function, payload)
    const ms = performance.now() - askedAt
    this.#bed.check(invocation, payload, 'cold')
    return ms
  }

  override rest(): Promise<void> {
    return untilEmpty(this.#pool)
  }
}

class ColdPeer extends ColdContender {
  readonly #bed: Bed
  readonly #running: RunningPeer

  constructor(bed: Bed, running: RunningPeer) {
    super(running.peer)
    this.#bed = bed
    this.#running = running
  }

  override isIn(round: number, rounds: number): boolean {
    return isInRound(this.#running.peer, round, rounds)
  }

  override async call(payload: Buffer): Promise<number> {
    const { ms, answer } = await this.#running.call(payload)
    this.#bed.checkBytes(this.name, answer, payload)
    return ms
  }

  /** It is gone when its call resolves. */
  override async rest(): Promise<void> {}
}

function describe(rows: readonly Row[], notes: readonly string[]): Section {
  const [own] = rows
  const ownOver = (peer: string, bound: number): Ratio => {
    const other = rows.find(({ name }) => name.startsWith(peer))
    return atMost(`cold miss over ${peer}, p50`, over(own, other, 'p50Us'), bound)
  }
  return {
    id: 'lease.miss',
    title: 'A call that finds none: built, started and answered, 256 bytes',
    method:
      'from asking until the answer is in JavaScript, one at a time, in turns, each when the one before is gone; ' +
      'peers run the same binary as ours for `link`, are started by a small spawner (posix_spawn, no fork of Node) ' +
      'and answer over a socket straight to Node; slow ones take part in fewer rounds',
    chart: 'latency',
    rows,
    ratios: [ownOver('unshare(1)', 0.7), ownOver('bwrap', 0.4), ownOver('runc', 0.08)],
    notes,
  }
}
