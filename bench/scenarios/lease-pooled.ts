// A call that finds a ready sandbox, beside the same call to a never-used plain child. Both sides are the same code: the
// second pool has every layer of isolation switched off and its children exec'd ahead, so the ratio is what isolation
// costs on this path and nothing else.
import type { FunctionSpec } from '../../contract/function.ts'
import type { Pool } from '../../worker/pool.ts'
import { closePools, createPayloads } from '../bed.ts'
import { Latency, until } from '../measure.ts'
import { atMost, type Context, type Row, type Section } from '../scenario.ts'

/** Layers without which a child is a plain one; those not named mean nothing where there is no mount namespace. */
const LAYERS = [
  ...['cgroup', 'pid_ns', 'mount_ns', 'net_ns', 'ipc_ns', 'uts_ns', 'cgroup_ns', 'time_ns', 'user_ns', 'nested_ns'],
  ...['groups', 'caps', 'no_new_privs', 'dumpable', 'rlimits', 'seccomp'],
]
const P50_MAX = 1.5
/** The first calls after a rest wake processors and caches, on both sides; the scenario is calls back to back. */
const LEAD = 3
/** Below half of what is kept ready: from there on the pool refills at once, beside the calls. */
const FULL = { ready: 100, burst: 48, rounds: 50, warmUpRounds: 4 }
const QUICK = { ready: 12, burst: 5, rounds: 4, warmUpRounds: 1 }
/** For the last of the dead: nothing that is measured waits for it. */
const REST_MS = 30

interface Contender extends Omit<Row, 'latency'> {
  readonly pool: Pool
  readonly spec: FunctionSpec
  readonly latency: Latency
}

export async function pooled(context: Context): Promise<Section> {
  const sizes = context.isQuick ? QUICK : FULL
  const contenders: Contender[] = []
  try {
    contenders.push(await openSandboxes(context, sizes.ready), await openPlain(context, sizes.ready))
    const total = sizes.warmUpRounds + sizes.rounds
    for (let round = 0; round < total; round++) {
      // Whoever goes second in one round goes first in the next.
      const order = round % 2 === 0 ? contenders : contenders.toReversed()
      for (const contender of order) {
        await atRest(contenders)
        await burst(contender, context, { calls: sizes.burst, isTimed: round >= sizes.warmUpRounds })
      }
      context.progress('pooled calls', round + 1, total)
    }
  } finally {
    await closePools(...contenders.map(({ pool }) => pool))
  }
  return describe(contenders, sizes)
}

async function openSandboxes({ bed }: Context, ready: number): Promise<Contender> {
  const spec = bed.spec({ name: 'echo', pool: { min: ready, max: ready * 2 } })
  return {
    name: 'Mayfly, ready sandbox',
    isolated: 'all of it',
    fresh: 'all of it',
    ...(await open({ number: 0, ablate: [], spec, bed })),
  }
}

async function openPlain({ bed }: Context, ready: number): Promise<Contender> {
  const argv = [bed.pathWithoutRoot('echo')]
  const spec = { ...bed.spec({ name: 'echo', pool: { min: ready, max: ready * 2 } }), argv }
  return {
    name: 'plain child, exec’d ahead',
    isolated: '-',
    fresh: 'process',
    ...(await open({ number: 1, ablate: LAYERS, spec, bed })),
  }
}

async function open({ number, ablate, spec, bed }: OpenOptions) {
  const pool = await bed.openPool(number, { slots: spec.pool.max, ablate })
  try {
    await bed.deploy(pool, spec)
  } catch (error) {
    await closePools(pool)
    throw error
  }
  return { pool, spec, latency: new Latency() }
}

interface OpenOptions {
  readonly number: number
  readonly ablate: readonly string[]
  readonly spec: FunctionSpec
  readonly bed: Context['bed']
}

/** Closed loop: the next call when the answer is there. */
async function burst(
  { pool, latency }: Contender,
  { bed }: Context,
  { calls, isTimed }: { calls: number; isTimed: boolean },
): Promise<void> {
  const nextPayload = createPayloads()
  for (let call = 0; call < calls; call++) {
    const payload = nextPayload()
    const askedAt = performance.now()
    const invocation = await pool.invoke('echo', payload)
    const ms = performance.now() - askedAt
    bed.check(invocation, payload, 'pooled')
    if (isTimed && call >= LEAD) latency.recordMs(ms)
  }
}

/** Until both pools are full again and the last dead sandbox is gone. */
async function atRest(contenders: readonly Contender[]): Promise<void> {
  const isFull = ({ pool, spec }: Contender) => {
    const { functions, slots } = pool.stats()
    return functions[0]?.ready === spec.pool.min && slots.total - slots.cold === spec.pool.min
  }
  const states = () => contenders.map(({ pool }) => JSON.stringify(pool.stats())).join(' ')
  await until(
    () => `the pools to be full again: ${states()}`,
    () => contenders.every(isFull),
  )
  await new Promise((resolve) => setTimeout(resolve, REST_MS))
}

function describe(contenders: readonly Contender[], sizes: typeof FULL): Section {
  const rows = contenders.map(({ name, isolated, fresh, latency }) => ({
    name,
    ...(isolated && { isolated }),
    ...(fresh && { fresh }),
    latency,
  }))
  const [ours, floor] = rows.map(({ latency }) => latency.summary)
  const over = (key: 'p50Us' | 'p99Us') => (ours && floor ? ours[key] / floor[key] : undefined)
  return {
    id: 'lease.link',
    title: 'A call that finds a ready sandbox: link echo, 256 bytes, a sandbox of its own each time',
    method:
      `pool.invoke until its promise resolves, one call at a time, back to back; ${sizes.rounds} rounds of ` +
      `${sizes.burst} calls a side in turns (the first ${LEAD} of each not counted), ${sizes.ready} kept ready`,
    chart: 'latency',
    rows,
    ratios: [
      atMost('pooled fresh call over a never-used plain child, p50', over('p50Us'), P50_MAX),
      atMost('pooled fresh call over a never-used plain child, p99', over('p99Us')),
    ],
    notes: [],
  }
}
