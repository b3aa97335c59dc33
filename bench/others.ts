// Who else works on the machine: before the start and during the run. What they take is missing from what is measured,
// and nothing in a latency says so.
import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { readProcessorTicks, tolerant } from './measure.ts'

const SAMPLE_MS = 300
const TICK_MS = 10
/** Parts of the whole machine's time. Less than that and a quiet machine would be called busy for its housekeeping. */
const OTHERS_MAX = 0.05
const STOLEN_MAX = 0.01
/** How many of the busy are named. */
const NAMED_MAX = 4

interface Snapshot {
  readonly processors: readonly number[]
  /** By pid and start time: pids come again. */
  readonly processes: ReadonlyMap<string, Process>
  readonly swapped: number
  readonly throttled: number
}

export interface Process {
  readonly pid: number
  readonly parent: number
  readonly name: string
  readonly ticks: number
}

/** What others do while this program does nothing. */
export async function sampleOthers(): Promise<string[]> {
  const before = takeSnapshot()
  await delay(SAMPLE_MS)
  const after = takeSnapshot()
  const total = totalBetween(before, after)
  const busy = total - idleBetween(before, after)
  const stolen = stolenBetween(before, after)
  const own = ticksOf(after, process.pid) - ticksOf(before, process.pid)
  const others = total === 0 ? 0 : Math.max(0, busy - own) / total
  const warnings: string[] = []
  if (others > OTHERS_MAX) {
    const names = namesOf(busyBetween(before.processes, after.processes), SAMPLE_MS / TICK_MS)
    warnings.push(
      `others took ${percent(others)} of the processors just before the start${names}: their work is in every number`,
    )
  }
  if (stolen > STOLEN_MAX) warnings.push(`the hypervisor gave ${percent(stolen)} of the processors to other machines`)
  return warnings
}

/** Called at the end of the run, says what happened meanwhile. */
export function watchOthers(): () => string[] {
  const before = takeSnapshot()
  return () => {
    const after = takeSnapshot()
    const total = totalBetween(before, after)
    const warnings: string[] = []
    // Whoever was there before is not of this run; what they started and waited for counts as theirs.
    const busy = busyBetween(before.processes, after.processes)
    const others = busy.reduce((sum, { ticks }) => sum + ticks, 0) / Math.max(1, total)
    if (others > OTHERS_MAX) {
      const names = namesOf(busy, total / availableParallelism())
      warnings.push(
        `during the run others took ${percent(others)} of the processors${names}: tails are theirs, and medians may be`,
      )
    }
    const stolen = stolenBetween(before, after)
    if (stolen > STOLEN_MAX) {
      warnings.push(`during the run the hypervisor gave ${percent(stolen)} of the processors to other machines`)
    }
    if (after.swapped > before.swapped) {
      warnings.push(`during the run ${after.swapped - before.swapped} pages were swapped: memory was short`)
    }
    if (after.throttled > before.throttled) warnings.push('during the run a processor got too hot and was slowed down')
    return warnings
  }
}

function takeSnapshot(): Snapshot {
  const vmstat = tolerant(() => readFileSync('/proc/vmstat', 'latin1')) ?? ''
  const pages = [...vmstat.matchAll(/^pswp(?:in|out) (\d+)$/gm)].map(([, count]) => Number(count))
  const throttle = '/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count'
  return {
    processors: readProcessorTicks(),
    processes: readProcesses(),
    swapped: pages.reduce((sum, count) => sum + count, 0),
    throttled: Number(tolerant(() => readFileSync(throttle, 'latin1')) ?? 0),
  }
}

/** Threads of the kernel are left out: they work for whoever runs, and so does the first process, as a reaper. */
function readProcesses(): Map<string, Process> {
  const processes = new Map<string, Process>()
  for (const name of readdirSync('/proc')) {
    const pid = Number(name)
    if (!(pid > 2)) continue
    const stat = tolerant(() => readFileSync(`/proc/${name}/stat`, 'latin1'))
    if (stat === null) continue
    const end = stat.lastIndexOf(')')
    const fields = stat.slice(end + 2).split(' ')
    const parent = Number(fields[1])
    if (parent === 2) continue
    // utime, stime, and those of children that ended.
    const ticks = fields.slice(11, 15).reduce((sum, count) => sum + Number(count), 0)
    // Anybody may name a process, and a terminal obeys what is no text.
    const printable = stat.slice(stat.indexOf('(') + 1, end).replaceAll(/[^ -~]/g, '?')
    processes.set(`${pid} ${fields[19]}`, { pid, parent, name: printable, ticks })
  }
  return processes
}

function ticksOf({ processes }: Snapshot, pid: number): number {
  for (const one of processes.values()) if (one.pid === pid) return one.ticks
  return 0
}

/**
 * Those of both snapshots that did something, the busiest first, and not this process. A parent is credited with the
 * whole life of a child that ended: what the child had done before is taken off again.
 */
export function busyBetween(before: Snapshot['processes'], after: Snapshot['processes']): Process[] {
  const creditedBefore = creditedFrom(before, after)
  const busy: Process[] = []
  for (const [key, one] of after) {
    const earlier = before.get(key)
    if (earlier === undefined || one.pid === process.pid) continue
    const ticks = one.ticks - earlier.ticks - (creditedBefore.get(one.pid) ?? 0)
    if (ticks > 0) busy.push({ ...one, ticks })
  }
  return busy.toSorted((a, b) => b.ticks - a.ticks)
}

/** By pid, what it inherited from children that were there before: all of theirs up to then. */
function creditedFrom(before: Snapshot['processes'], after: Snapshot['processes']): Map<number, number> {
  const credited = new Map<number, number>()
  const parents = new Map([...before].map(([key, one]) => [one.pid, { key, ...one }]))
  for (const [key, { parent, ticks }] of before) {
    if (after.has(key)) continue
    let heir = parents.get(parent)
    while (heir !== undefined && !after.has(heir.key)) heir = parents.get(heir.parent)
    if (heir !== undefined) credited.set(heir.pid, (credited.get(heir.pid) ?? 0) + ticks)
  }
  return credited
}

function namesOf(busy: readonly Process[], ticks: number): string {
  if (busy.length === 0) return ''
  const named = busy.slice(0, NAMED_MAX).map((one) => `${one.name} (${one.pid}) ${percent(one.ticks / ticks)} of one`)
  return `, ${named.join(', ')}`
}

function totalBetween(before: Snapshot, after: Snapshot): number {
  // Without guests' time, which is counted as user time already.
  const sum = ({ processors }: Snapshot) => processors.slice(0, 8).reduce((all, ticks) => all + ticks, 0)
  return sum(after) - sum(before)
}

function idleBetween(before: Snapshot, after: Snapshot): number {
  const idle = ({ processors }: Snapshot) => (processors[3] ?? 0) + (processors[4] ?? 0)
  return idle(after) - idle(before)
}

/** A part of all. */
function stolenBetween(before: Snapshot, after: Snapshot): number {
  return ((after.processors[7] ?? 0) - (before.processors[7] ?? 0)) / Math.max(1, totalBetween(before, after))
}

function percent(part: number): string {
  return `${(part * 100).toFixed(part < 0.1 ? 1 : 0)} %`
}
