// What an idle sandbox holds: all of it by what the machine has less of, and of that what its processes and the kernel
// hold by their own accounts. And how long another one takes to start beside so many.
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Pool } from '../../worker/pool.ts'
import { type Bed, closePools, createPayloads } from '../bed.ts'
import { Latency, lower } from '../measure.ts'
import { medianOf } from '../merge.ts'
import { deployEmpty, untilFull } from '../rest.ts'
import { atMost, type Context, type Row, type Section } from '../scenario.ts'

const KIB_MAX = 600
/** Init and the function. */
const PROCESSES_EACH = 2
/** Others allocate and free meanwhile: the median of so many looks. */
const LOOKS = 7
/** `settleMs` is for memory that the kernel frees when it gets to it. */
const FULL = { steps: [10, 100, 1000], starts: 60, settleMs: 500 }
const QUICK = { steps: [10, 20], starts: 3, settleMs: 50 }
type Sizes = typeof FULL

/** Lines of /proc/meminfo, in KiB. */
const KERNEL = ['Slab', 'KernelStack', 'PageTables', 'Percpu'] as const
type Memory = Readonly<Record<'MemAvailable' | (typeof KERNEL)[number], number>>

/** What the machine and this process hold with so many sandboxes idle. */
interface State {
  readonly ready: number
  readonly memory: Memory
  readonly descriptors: number
}

export async function held(context: Context): Promise<Section> {
  const { bed, isQuick } = context
  const sizes = isQuick ? QUICK : FULL
  const rows: Row[] = []
  const notes: string[] = []
  let last = 0
  const pool = await bed.openPool(1, { slots: Math.max(...sizes.steps) + 8 })
  try {
    await deployEmpty(bed, pool, bed.spec({ name: 'once', command: ['/guest', 'once'], pool: { min: 0, max: 4 } }))
    let before = await lookAt(0, sizes.settleMs)
    for (const [step, ready] of sizes.steps.entries()) {
      const added = ready - before.ready
      await bed.deploy(pool, bed.spec({ name: `idle-${ready}`, pool: { min: added, max: added } }))
      await untilFull([{ pool, ready }])
      const after = await lookAt(ready, sizes.settleMs)
      const latency = await startBeside(bed, pool, { ready, starts: sizes.starts })
      rows.push(describeStep(pool, { before, after, latency }))
      last = perSandbox(before, after, 'MemAvailable')
      if (step === sizes.steps.length - 1) notes.push(boundsOf(before, after), ...restrictions(rows))
      before = after
      context.progress('numbers of idle sandboxes', step + 1, sizes.steps.length)
    }
  } finally {
    await closePools(pool)
  }
  return describe(rows, { sizes, last, notes })
}

async function lookAt(ready: number, settleMs: number): Promise<State> {
  await delay(settleMs)
  const looks: Memory[] = []
  for (; looks.length < LOOKS; await delay(10)) looks.push(readMemory())
  const median = (key: keyof Memory) => medianOf(looks.map((look) => look[key]))
  const kernel = Object.fromEntries(KERNEL.map((key) => [key, median(key)])) as Record<(typeof KERNEL)[number], number>
  const descriptors = readdirSync('/proc/self/fd').length
  return { ready, memory: { ...kernel, MemAvailable: median('MemAvailable') }, descriptors }
}

function readMemory(): Memory {
  const lines = readFileSync('/proc/meminfo', 'latin1').matchAll(/^(\w+):\s+(\d+) kB$/gm)
  // A kernel that does not count one of them (Percpu is new) has it elsewhere, in what is available.
  const counted = Object.fromEntries([...lines].map(([, key, value]) => [key, Number(value)]))
  return { MemAvailable: 0, Slab: 0, KernelStack: 0, PageTables: 0, Percpu: 0, ...counted }
}

/** One at a time, each when the one before is gone. */
async function startBeside(
  bed: Bed,
  pool: Pool,
  { ready, starts }: { ready: number; starts: number },
): Promise<Latency> {
  const latency = new Latency()
  const nextPayload = createPayloads()
  for (let start = 0; start < starts; start++) {
    const payload = nextPayload()
    const askedAt = performance.now()
    const invocation = await pool.invoke('once', payload)
    latency.recordMs(performance.now() - askedAt)
    bed.check(invocation, payload, 'cold')
    await untilFull([{ pool, ready }], 0)
  }
  return latency
}

/** How much more is held after than before, for each that was added. */
function perSandbox(before: State, after: State, key: keyof Memory): number {
  const more = after.memory[key] - before.memory[key]
  return (key === 'MemAvailable' ? -more : more) / (after.ready - before.ready)
}

function descriptorsEach(before: State, after: State): number {
  return (after.descriptors - before.descriptors) / (after.ready - before.ready)
}

interface Measured {
  readonly before: State
  readonly after: State
  readonly latency: Latency
}

function describeStep(pool: Pool, { before, after, latency }: Measured): Row {
  const each = (key: keyof Memory) => perSandbox(before, after, key)
  const processesKiB = shareOfProcesses(pool)
  return {
    name: `${after.ready} idle`,
    latency,
    figures: {
      'all of it': lower(each('MemAvailable'), 'KiB'),
      ...(processesKiB !== undefined && { processes: lower(processesKiB, 'KiB') }),
      kernel: lower(
        KERNEL.reduce((sum, key) => sum + each(key), 0),
        'KiB',
      ),
      slab: lower(each('Slab'), 'KiB'),
      stacks: lower(each('KernelStack'), 'KiB'),
      'page tables': lower(each('PageTables'), 'KiB'),
      descriptors: lower(descriptorsEach(before, after)),
    },
  }
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

/** What would end first if more and more were made here. Computed and not tried: it would take the machine down. */
function boundsOf(before: State, after: State): string {
  const [, files = ''] = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? []
  const pids = Number(readFileSync('/proc/sys/kernel/pid_max', 'latin1'))
  const parts = {
    memory: after.ready + after.memory.MemAvailable / perSandbox(before, after, 'MemAvailable'),
    'descriptors of the worker (RLIMIT_NOFILE)': Number(files) / descriptorsEach(before, after),
    'process ids (kernel.pid_max)': pids / PROCESSES_EACH,
  }
  const said = Object.entries(parts).toSorted(([, a], [, b]) => a - b)
  return `this machine would hold: ${said.map(([what, most]) => `${Math.floor(most)} by ${what}`).join(', ')}`
}

function restrictions(rows: readonly Row[]): string[] {
  const isKnown = rows.every(({ figures }) => figures?.['processes'] !== undefined)
  return isKnown ? [] : ['PSS is left out: as this user the processes of sandboxes cannot be looked at']
}

function describe(
  rows: readonly Row[],
  { sizes, last, notes }: { sizes: Sizes; last: number; notes: readonly string[] },
): Section {
  const { starts, settleMs } = sizes
  return {
    id: 'memory.held',
    title: 'What an idle ready sandbox holds, and how long another takes to start beside so many',
    method:
      `what the machine has less of (MemAvailable), ${settleMs} ms after the last was ready, for each that was added since ` +
      'the row above; the first use up what the kernel kept of earlier ones. Of that: PSS of init and function ' +
      '(smaps_rollup, mean of all), and slab, kernel stacks, page tables and per-processor memory of the kernel. Then ' +
      `${starts} calls that find none ready, one at a time`,
    chart: 'figures',
    rows,
    ratios: [atMost('memory per idle ready native sandbox, KiB', last, KIB_MAX)],
    notes,
  }
}
