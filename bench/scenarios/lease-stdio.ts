// A `stdio` call: the program is executed ahead, or at the call, gets the payload on stdin and answers by exiting.
import { atMost, type Context, type Row, type Section } from '../scenario.ts'
import { burst, type Contender, takeTurns } from './lease-contender.ts'
import { over } from './lease-link.ts'
import { openPools, type Plan } from './lease-pools.ts'
import { openStarter, PlainChildren } from './lease-processes.ts'

/** Below half of what is kept ready, as for `link`. */
const FULL = { ready: 64, calls: 30, rounds: 30, warmUpRounds: 3, lead: 2 }
const QUICK = { ready: 8, calls: 3, rounds: 2, warmUpRounds: 1, lead: 1 }

export async function stdio(context: Context): Promise<Section> {
  const sizes = context.isQuick ? QUICK : FULL
  const { contenders: pooled, close } = await openPools(context.bed, plansOf(sizes.ready))
  const children = new PlainChildren(context.bed, sizes.calls)
  const starter = openStarter(context.bed)
  const contenders: readonly Contender[] = [...pooled, children, starter]
  try {
    const { calls, lead } = sizes
    await takeTurns(contenders, context, { what: 'stdio calls', ...sizes }, (contender, isTimed) =>
      burst(contender, { calls, lead, isTimed }),
    )
  } finally {
    children.close()
    starter.close()
    await close()
  }
  return describe(
    contenders.map(({ rowWithCpu }) => rowWithCpu),
    sizes,
  )
}

function plansOf(ready: number): Plan[] {
  const pool = { min: ready, max: ready * 2 }
  const program = 'stdio'
  const start = 'pooled'
  const eager = { contract: 'stdio', start: 'eager', pool } as const
  const lazy = { contract: 'stdio', start: 'lazy', pool } as const
  const all = { isolated: 'all of it', fresh: 'all of it', layers: 'all', program, start } as const
  const nothing = { isolated: '-', fresh: 'process', layers: 'nothing', program, start } as const
  return [
    { name: 'Mayfly, eager', ...all, manifest: eager },
    { name: 'exec’d ahead, no isolation', ...nothing, manifest: eager },
    { name: 'Mayfly, lazy', ...all, manifest: lazy },
  ]
}

function describe(rows: readonly Row[], { ready, rounds, calls, lead }: typeof FULL): Section {
  const [eager, plain, , children] = rows
  return {
    id: 'lease.stdio',
    title: 'A stdio call: a program that copies 256 bytes from stdin to stdout and exits',
    method:
      `one call at a time, back to back, each to a process of its own; ${rounds} rounds of ${calls} calls a side in ` +
      `turns (the first ${lead} not counted), ${ready} kept ready. Exec’d ahead without isolation is the same code as ` +
      'ours, our init included, which reaps it; child_process is Node alone, answered by the event `close`; vfork and ' +
      'exec is timed inside a small C program, from nothing to the exit, and pays for no Node',
    chart: 'latency',
    rows,
    ratios: [
      atMost('pooled stdio call, eager, over the same binary exec’d ahead, p50', over(eager, plain, 'p50Us'), 1.3),
      atMost('pooled stdio call, eager, over a child of Node alone, p50', over(eager, children, 'p50Us')),
    ],
    notes: [],
  }
}
