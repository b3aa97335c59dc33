// The same calls over HTTP: a fresh sandbox each, a reused one, and a plain server that only echoes, under one load
// generator that is a process of its own.
import { PAYLOAD_BYTES } from '../bed.ts'
import type { Context, Scenario, Section } from '../scenario.ts'
import { Generator, type Load, type Told } from './http-load.ts'
import {
  describeArrivals,
  describeBursts,
  describeSaturated,
  FRESH,
  HONO,
  REUSED,
  type Tallies,
  Tally,
} from './http-sections.ts'
import { type MayflyServer, type Server, startHono, startMayfly } from './http-servers.ts'

/** Below half of what is kept ready: from there on the pool refills at once, beside the calls. */
const FULL = {
  ready: 100,
  warmUpMs: 1500,
  burst: { calls: 48, rounds: 50, warmUpRounds: 2 },
  saturated: { ms: 2000, rounds: 2 },
  arrivals: { ms: 2500, rounds: 2 },
}
const QUICK: typeof FULL = {
  ready: 20,
  warmUpMs: 100,
  burst: { calls: 8, rounds: 2, warmUpRounds: 0 },
  saturated: { ms: 150, rounds: 1 },
  arrivals: { ms: 300, rounds: 1 },
}
/** The first calls after a rest wake processors and caches, on all sides. */
const LEAD = 3
const CONNECTIONS = [8, 32] as const
const MOST_CONNECTIONS = 32
/** Of the calls per second that fresh sandboxes sustain: what all can serve. */
const ARRIVALS = 0.5

interface Contender {
  readonly name: string
  readonly path: string
  readonly server: Server
  /** Every call must have a sandbox that no other had. */
  readonly isFresh: boolean
}

interface World {
  readonly context: Context
  readonly sizes: typeof FULL
  readonly generator: Generator
  readonly mayfly: MayflyServer
  readonly contenders: readonly Contender[]
}

export const http: Scenario = {
  name: 'http',
  help: 'the same calls over HTTP at 1, 8 and 32 connections, beside a plain echo server',
  async run(context) {
    const sizes = context.isQuick ? QUICK : FULL
    const closing: (() => Promise<void> | void)[] = []
    try {
      const generator = new Generator()
      closing.push(() => generator.close())
      const hono = await startHono()
      closing.push(hono.close)
      const mayfly = await startMayfly(context.bed, [
        { name: 'fresh', pool: { min: sizes.ready, max: sizes.ready + MOST_CONNECTIONS } },
        { name: 'reused', pool: { min: MOST_CONNECTIONS, max: MOST_CONNECTIONS }, reuse: 'function' },
      ])
      closing.push(mayfly.close)
      return await measure({ context, sizes, generator, mayfly, contenders: contendersOf(mayfly, hono) })
    } finally {
      for (const close of closing.toReversed()) await close()
    }
  },
}

function contendersOf(mayfly: Server, hono: Server): Contender[] {
  return [
    { name: FRESH.name, path: '/v1/functions/fresh/invoke', server: mayfly, isFresh: true },
    { name: REUSED.name, path: '/v1/functions/reused/invoke', server: mayfly, isFresh: false },
    { name: HONO.name, path: '/echo', server: hono, isFresh: false },
  ]
}

async function measure(world: World): Promise<Section[]> {
  const { burst, saturated, arrivals, ready, warmUpMs } = world.sizes
  for (const contender of world.contenders) {
    await ask(world, contender, { connections: CONNECTIONS[0], load: { kind: 'time', ms: warmUpMs } })
  }
  const sections = [describeBursts(await bursts(world), { ...burst, lead: LEAD, ready })]
  let sustained = 0
  for (const connections of CONNECTIONS) {
    const load: Load = { kind: 'time', ms: saturated.ms }
    const tallies = await inTurns(world, { rounds: saturated.rounds, connections, load })
    sections.push(describeSaturated(tallies, { ...saturated, connections }))
    sustained = tallies.get(FRESH.name)?.perSecond ?? 0
  }
  const [connections, perSecond] = [MOST_CONNECTIONS, Math.max(1, Math.round(sustained * ARRIVALS))]
  const load: Load = { kind: 'rate', perSecond, ms: arrivals.ms }
  const tallies = await inTurns(world, { rounds: arrivals.rounds, connections, load })
  sections.push(describeArrivals(tallies, { ...arrivals, connections, perSecond }))
  return sections
}

interface Asked {
  readonly connections: number
  readonly load: Load
}

/** From a pool that is full and at rest, whoever is asked. */
async function ask(world: World, contender: Contender, { connections, load }: Asked, tally?: Tally): Promise<Told> {
  const { context, generator, mayfly } = world
  await mayfly.rest()
  const { server, path, isFresh } = contender
  tally?.machine.start()
  const told = await generator.run({ url: server.url, path, connections, payloadBytes: PAYLOAD_BYTES, load })
  tally?.machine.stop()
  const { checked } = context.bed
  checked.answers += told.ms.length
  if (!isFresh) return told
  for (const sandbox of told.sandboxes) {
    if (sandbox === '' || checked.sandboxes.has(sandbox)) throw new Error(`sandbox ${sandbox} answered a second call`)
    checked.sandboxes.add(sandbox)
  }
  return told
}

async function bursts(world: World): Promise<Tallies> {
  const { calls, rounds, warmUpRounds } = world.sizes.burst
  const tallies = new Map(world.contenders.map(({ name }) => [name, new Tally()]))
  const load: Load = { kind: 'calls', calls }
  for (let round = 0; round < warmUpRounds + rounds; round++) {
    for (const contender of turnsOf(world, round)) {
      const told = await ask(world, contender, { connections: 1, load })
      if (told.starts.includes('cold') || told.refusals.length > 0) {
        throw new Error(
          `${contender.name}: not every call of a burst found a sandbox ready: ${told.refusals[0] ?? 'cold'}`,
        )
      }
      if (round >= warmUpRounds) tallies.get(contender.name)?.add(told, LEAD)
    }
    world.context.progress('bursts on one connection', round + 1, warmUpRounds + rounds)
  }
  return tallies
}

async function inTurns(world: World, { rounds, ...asked }: Asked & { rounds: number }): Promise<Tallies> {
  const tallies = new Map(world.contenders.map(({ name }) => [name, new Tally()]))
  const what = asked.load.kind === 'rate' ? 'fixed arrivals' : `${asked.connections} connections`
  for (let round = 0; round < rounds; round++) {
    for (const contender of turnsOf(world, round)) {
      const tally = tallies.get(contender.name)
      tally?.add(await ask(world, contender, asked, tally))
    }
    world.context.progress(what, round + 1, rounds)
  }
  return tallies
}

/** Whoever goes first in one round goes last in the next. */
function turnsOf({ contenders }: World, round: number): readonly Contender[] {
  return round % 2 === 0 ? contenders : contenders.toReversed()
}
