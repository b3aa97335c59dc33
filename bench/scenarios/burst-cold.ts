// A hundred sandboxes at once from nothing, by the wall clock: until all have answered, and until all are gone.
import type { Pool } from '../../worker/pool.ts'
import { type Bed, closePools, createPayloads } from '../bed.ts'
import { Latency } from '../measure.ts'
import { bwrap } from '../peers/bwrap.ts'
import { openPeers, type RunningPeer } from '../peers/peer.ts'
import { plain } from '../peers/plain.ts'
import { unshare } from '../peers/unshare.ts'
import { deployEmpty, untilEmpty } from '../rest.ts'
import { atMost, type Context, type Row, type Section } from '../scenario.ts'

const FULL = { number: 100, rounds: 12, warmUpRounds: 2 }
const QUICK = { number: 10, rounds: 1, warmUpRounds: 0 }

/** From the first call, in milliseconds. */
interface Took {
  readonly answeredMs: number
  readonly goneMs: number
}

interface Contender extends Pick<Row, 'isolated' | 'fresh'> {
  readonly name: string
  readonly answered: Latency
  readonly gone: Latency
  run(payloads: readonly Buffer[]): Promise<Took>
}

export async function atOnce(context: Context): Promise<Section> {
  const { bed, isQuick } = context
  const sizes = isQuick ? QUICK : FULL
  const nextPayload = createPayloads()
  const pool = await bed.openPool(0, { slots: sizes.number })
  let peers: readonly RunningPeer[] = []
  try {
    const spec = bed.spec({ name: 'once', command: ['/guest', 'once'], pool: { min: 0, max: sizes.number } })
    await deployEmpty(bed, pool, spec)
    // One to start each: a spawner starts a process when the one before has ended.
    const wanted = [bwrap, unshare, plain(bed.root)].flatMap((peer) => new Array(sizes.number).fill(peer))
    const { running, notes } = await openPeers(wanted, bed, nextPayload())
    peers = running
    const names = [...new Set(running.map(({ peer }) => peer.name))]
    const groups = names.map((name) => running.filter(({ peer }) => peer.name === name))
    const contenders = [ours(bed, pool), ...groups.map((group) => theirs(bed, group))]
    const total = sizes.warmUpRounds + sizes.rounds
    for (let round = 0; round < total; round++) {
      for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
        // Each its own: all of them are on their way at once.
        const payloads = Array.from({ length: sizes.number }, () => Buffer.from(nextPayload()))
        const { answeredMs, goneMs } = await contender.run(payloads)
        if (round < sizes.warmUpRounds) continue
        contender.answered.recordMs(answeredMs)
        contender.gone.recordMs(goneMs)
      }
      context.progress('bursts from nothing', round + 1, total)
    }
    return describe(contenders, { number: sizes.number, notes: [...new Set(notes)] })
  } finally {
    for (const peer of peers) peer.close()
    await closePools(pool)
  }
}

function ours(bed: Bed, pool: Pool): Contender {
  return {
    name: 'Mayfly',
    isolated: 'all of it',
    fresh: 'all of it',
    answered: new Latency(),
    gone: new Latency(),
    async run(payloads) {
      const askedAt = performance.now()
      const invocations = await Promise.all(payloads.map((payload) => pool.invoke('once', payload)))
      const answeredMs = performance.now() - askedAt
      await untilEmpty(pool)
      const goneMs = performance.now() - askedAt
      for (const [index, invocation] of invocations.entries()) {
        bed.check(invocation, payloads[index] ?? Buffer.alloc(0), 'cold')
      }
      return { answeredMs, goneMs }
    },
  }
}

function theirs(bed: Bed, group: readonly RunningPeer[]): Contender {
  const { name = '', isolated = '', fresh = '' } = group[0]?.peer ?? {}
  return {
    name,
    isolated,
    fresh,
    answered: new Latency(),
    gone: new Latency(),
    async run(payloads) {
      const askedAt = performance.now()
      const calls = group.map(async (peer, index) => {
        const payload = payloads[index] ?? Buffer.alloc(0)
        const startedMs = performance.now() - askedAt
        const { ms, answer } = await peer.call(payload)
        bed.checkBytes(name, answer, payload)
        return startedMs + ms
      })
      const answeredMs = Math.max(...(await Promise.all(calls)))
      return { answeredMs, goneMs: performance.now() - askedAt }
    },
  }
}

function describe(
  contenders: readonly Contender[],
  { number, notes }: { number: number; notes: readonly string[] },
): Section {
  const rows = contenders.flatMap(({ name, isolated, fresh, answered, gone }): Row[] => [
    { name: `${name}: answered`, latency: answered, ...(isolated && { isolated }), ...(fresh && { fresh }) },
    { name: `${name}: gone`, latency: gone },
  ])
  const [own, ...others] = contenders
  const ratios = others.map(({ name, answered }) =>
    atMost(`${number} at once over ${name}, until answered, p50`, own && own.answered.p50Us / answered.p50Us),
  )
  return {
    id: 'burst.cold',
    title: `${number} at once, with nothing ready: until all have answered, and until all are gone`,
    method:
      `${number} calls in one turn of the event loop, 256 bytes each, each checked; in turns, each when all before are gone. ` +
      'Peers have a spawner (posix_spawn) each that waits for the word',
    chart: 'latency',
    rows,
    ratios,
    notes,
  }
}
