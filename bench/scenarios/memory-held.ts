// What an idle sandbox holds: all of it by what the machine has less of, its processes' share by what the kernel says
// of them, and the rest is the kernel's own. And how long another one takes to start beside so many.
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Pool } from '../../worker/pool.ts'
import { type Bed, closePools, createPayloads } from '../bed.ts'
import { Latency, lower, memAvailableKiB } from '../measure.ts'
import { medianOf } from '../merge.ts'
import { deployEmpty, untilEmpty, untilFull } from '../rest.ts'
import { atMost, type Context, type Figure, type Row, type Section } from '../scenario.ts'

const KIB_MAX = 600
/** Init and the function. */
const PROCESSES_EACH = 2
interface Step {
  readonly ready: number
  /** Few sandboxes are little beside what else comes and goes: then the median of many looks. */
  readonly looks: number
}
const FULL: Sizes = {
  steps: [
    { ready: 10, looks: 9 },
    { ready: 100, looks: 5 },
    { ready: 1000, looks: 3 },
  ],
  starts: 60,
  settleMs: 500,
}
const QUICK: Sizes = { steps: [{ ready: 10, looks: 1 }], starts: 3, settleMs: 50 }
interface Sizes {
  readonly steps: readonly Step[]
  /** Cold starts beside the idle ones, per look. */
  readonly starts: number
  /** For memory that the kernel frees when it gets to it. */
  readonly settleMs: number
}

/** What was seen of one number of idle sandboxes, each time in KiB for one of them. */
class Seen {
  readonly start = new Latency()
  readonly wholeKiB: number[] = []
  readonly processesKiB: number[] = []
  readonly descriptors: number[] = []
}

export async function held(context: Context): Promise<Section> {
  const { bed, isQuick } = context
  const sizes = isQuick ? QUICK : FULL
  const most = Math.max(...sizes.steps.map(({ ready }) => ready))
  const seen = new Map(sizes.steps.map((step) => [step.ready, new Seen()]))
  const pool = await bed.openPool(1, { slots: most + 8 })
  try {
    await deployEmpty(bed, pool, bed.spec({ name: 'once', command: ['/guest', 'once'], pool: { min: 0, max: 4 } }))
    for (const { ready, looks } of sizes.steps) {
      for (let look = 0; look < looks; look++) {
        await lookAt(bed, pool, {
          ready,
          into: seen.get(ready) ?? new Seen(),
          ...sizes,
          starts: Math.ceil(sizes.starts / looks),
        })
        context.progress(`looks at ${ready} idle sandboxes`, look + 1, looks)
      }
    }
  } finally {
    await closePools(pool)
  }
  return describe(seen, sizes)
}

interface LookOptions {
  readonly ready: number
  readonly starts: number
  readonly settleMs: number
  readonly into: Seen
}

/** From nothing to so many idle ones and back. */
async function lookAt(bed: Bed, pool: Pool, { ready, starts, settleMs, into }: LookOptions): Promise<void> {
  await delay(settleMs)
  const descriptors = countDescriptors('self')
  const before = await available()
  await bed.deploy(pool, bed.spec({ name: 'idle', pool: { min: ready, max: ready } }))
  await untilFull([{ pool, ready }], settleMs)
  const after = await available()
  into.wholeKiB.push((before - after) / ready)
  into.descriptors.push((countDescriptors('self') - descriptors) / ready)
  const processesKiB = shareOfProcesses(pool)
  if (processesKiB !== undefined) into.processesKiB.push(processesKiB)
  const nextPayload = createPayloads()
  for (let start = 0; start < starts; start++) {
    const payload = nextPayload()
    const askedAt = performance.now()
    const invocation = await pool.invoke('once', payload)
    into.start.recordMs(performance.now() - askedAt)
    bed.check(invocation, payload, 'cold')
    await untilFull([{ pool, ready }], 0)
  }
  await pool.remove('idle')
  await untilEmpty(pool)
}

/** Others allocate and free meanwhile: the median of a few looks. */
async function available(): Promise<number> {
  const looks: number[] = []
  while (looks.length < 7) {
    looks.push(memAvailableKiB())
    await delay(10)
  }
  return medianOf(looks)
}

/** PSS of init and function, for one sandbox on average; nothing where this user may not look at them. */
function shareOfProcesses(pool: Pool): number | undefined {
  const sandboxes = pool.sandboxes()
  try {
    const shares = sandboxes.map(({ hostPid }) => pssKiB(hostPid) + pssKiB(parentOf(hostPid)))
    return shares.reduce((sum, share) => sum + share, 0) / sandboxes.length
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') return undefined
    throw error
  }
}

function pssKiB(pid: number): number {
  return Number(/^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'))?.[1])
}

function parentOf(pid: number): number {
  return Number(/^PPid:\t(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1])
}

function countDescriptors(process: string): number {
  return readdirSync(`/proc/${process}/fd`).length
}

function describe(seen: ReadonlyMap<number, Seen>, { steps, starts, settleMs }: Sizes): Section {
  const looks = steps.map((step) => step.looks)
  const rows = [...seen].map(
    ([ready, { start, ...rest }]): Row => ({ name: `${ready} idle`, latency: start, figures: figuresOf(rest) }),
  )
  const largest = [...seen.values()].at(-1)
  const wholeKiB = largest && medianOf(largest.wholeKiB)
  return {
    id: 'memory.held',
    title: 'What an idle ready sandbox holds, and how long another takes to start beside so many',
    method:
      `MemAvailable before and after so many were made, ${settleMs} ms after the last one, per sandbox, median of ${looks.join(', ')} ` +
      'times; of few it is little beside what else the machine does. PSS of init and function from smaps_rollup; the ' +
      `kernel’s is the difference. Then ${starts} calls that find none ready, one at a time`,
    chart: 'figures',
    rows,
    ratios: [atMost('memory per idle ready native sandbox, KiB', wholeKiB, KIB_MAX)],
    notes: largest === undefined ? [] : [bounds(largest), ...restrictions(largest)],
  }
}

function figuresOf({ wholeKiB, processesKiB, descriptors }: Omit<Seen, 'start'>): Readonly<Record<string, Figure>> {
  const whole = medianOf(wholeKiB)
  const figures = { 'all of it': lower(whole, 'KiB'), descriptors: lower(medianOf(descriptors)) }
  if (processesKiB.length === 0) return figures
  const processes = medianOf(processesKiB)
  return { ...figures, 'its processes': lower(processes, 'KiB'), 'the kernel': lower(whole - processes, 'KiB') }
}

/** What would end first if more and more were made here. Computed and not tried: it would take the machine down. */
function bounds({ wholeKiB, descriptors }: Seen): string {
  const [, , files = ''] = /^Max open files(\s+(\d+)){2}/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? []
  const pids = Number(readFileSync('/proc/sys/kernel/pid_max', 'latin1'))
  const parts = {
    memory: memAvailableKiB() / medianOf(wholeKiB),
    'descriptors of the worker (RLIMIT_NOFILE)': Number(files) / medianOf(descriptors),
    'process ids (kernel.pid_max)': pids / PROCESSES_EACH,
  }
  const said = Object.entries(parts).toSorted(([, a], [, b]) => a - b)
  return `this machine holds: ${said.map(([what, most]) => `${Math.floor(most)} by ${what}`).join(', ')}`
}

function restrictions({ processesKiB }: Seen): string[] {
  return processesKiB.length > 0 ? [] : ['PSS is left out: as this user the processes of sandboxes cannot be looked at']
}
