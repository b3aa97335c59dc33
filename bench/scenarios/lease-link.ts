// A `link` call that finds a sandbox ready, or one that was used before, beside the same call to a plain child.
import { atMost, type Context, type Row, type Section } from '../scenario.ts'
import { burst, takeTurns } from './lease-contender.ts'
import { openPools, type Plan, type PooledContender } from './lease-pools.ts'

/** Below half of what is kept ready: from there on the pool refills at once, beside the calls. */
const FULL = { ready: 100, burst: 48, reused: 480, rounds: 50, warmUpRounds: 4 }
const QUICK = { ready: 12, burst: 5, reused: 10, rounds: 4, warmUpRounds: 1 }
const LEAD = 3

const fresh = (ready: number): Pick<Plan, 'program' | 'manifest' | 'start'> => ({
  program: 'echo',
  manifest: { contract: 'link', pool: { min: ready, max: ready * 2 } },
  start: 'pooled',
})
const REUSED: Pick<Plan, 'program' | 'manifest' | 'start'> = {
  program: 'echo',
  manifest: { contract: 'link', pool: { min: 1, max: 1 }, reuse: 'function' },
  start: 'reused',
}

export const freshPlan = (ready: number): Plan => ({
  name: 'Mayfly, ready sandbox',
  isolated: 'all of it',
  fresh: 'all of it',
  layers: 'all',
  ...fresh(ready),
})
export const plainPlan = (ready: number): Plan => ({
  name: 'plain child, exec’d ahead',
  isolated: '-',
  fresh: 'process',
  layers: 'nothing',
  ...fresh(ready),
})
const groupsPlan = (ready: number): Plan => ({
  name: 'plain child in cgroup leaves',
  isolated: 'limits',
  fresh: 'process, cgroups',
  layers: 'groups',
  ...fresh(ready),
})
const reusedPlan: Plan = { name: 'Mayfly, reused sandbox', isolated: 'all of it', fresh: '-', layers: 'all', ...REUSED }
const oneChildPlan: Plan = {
  name: 'one plain child, used again',
  isolated: '-',
  fresh: '-',
  layers: 'nothing',
  ...REUSED,
}

export async function link(context: Context): Promise<Section> {
  const sizes = context.isQuick ? QUICK : FULL
  const { ready } = sizes
  const plans = [freshPlan(ready), plainPlan(ready), groupsPlan(ready), reusedPlan, oneChildPlan]
  const { contenders, close } = await openPools(context.bed, plans)
  try {
    await takeTurns(contenders, context, { what: 'link calls', ...sizes }, async (contender, isTimed) => {
      const calls = contender.isReused ? sizes.reused : sizes.burst
      await burst(contender, { calls, lead: LEAD, isTimed })
    })
  } finally {
    await close()
  }
  return describe(contenders, sizes)
}

function describe(contenders: readonly PooledContender[], { rounds, ready, ...sizes }: typeof FULL): Section {
  const rows = contenders.map((contender) => contender.rowWithCpu)
  const [ours, plain, groups, reused, oneChild] = rows
  return {
    id: 'lease.link',
    title: 'A call that finds a ready sandbox: link echo, 256 bytes, back to back',
    method:
      `pool.invoke until its promise resolves, one call at a time; ${rounds} rounds of ${sizes.burst} calls a side ` +
      `in turns (${sizes.reused} of what is used again; the first ${LEAD} of each not counted), ${ready} kept ready. ` +
      'All sides are the same code: a plain child is a sandbox without its layers, and echoes over a socketpair. CPU ' +
      'is of the whole machine, refill and tear-down included',
    chart: 'latency',
    rows,
    ratios: [
      atMost('pooled fresh call over a never-used plain child, p50', over(ours, plain, 'p50Us'), 1.4),
      atMost('pooled fresh call over a never-used plain child, p99', over(ours, plain, 'p99Us'), 1.6),
      atMost(
        'pooled fresh call over a never-used plain child in cgroup leaves, p50',
        over(ours, groups, 'p50Us'),
        1.15,
      ),
      atMost('reused call over one plain child, p50', over(reused, oneChild, 'p50Us'), 1.3),
    ],
    notes: [],
  }
}

/** Nothing where one of the two was not measured. */
export function over(ours: Row | undefined, other: Row | undefined, key: 'p50Us' | 'p99Us'): number | undefined {
  return ours?.latency && other?.latency && ours.latency[key] / other.latency[key]
}
