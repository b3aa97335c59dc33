// What the numbers were taken on, and why they cannot be trusted if so.
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'

export interface Host {
  readonly kernel: string
  readonly cpus: number
  readonly cpuModel: string
  readonly memoryBytes: number
  /** Runnable tasks over the last minute, before anything was measured. */
  readonly load: number
  readonly governor: string | null
  readonly cgroups: 'v1' | 'v2' | 'hybrid' | 'none'
  readonly isVirtual: boolean
  readonly node: string
  readonly warnings: readonly string[]
}

/** More of the processors than this in use by others, and tails are theirs. */
const LOAD_PER_CPU_MAX = 0.5

export function describeHost(): Host {
  const host = {
    kernel: release(),
    cpus: availableParallelism(),
    cpuModel: cpus()[0]?.model ?? 'unknown',
    memoryBytes: totalmem(),
    load: loadavg()[0] ?? 0,
    governor: tolerant(() => readFileSync('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor', 'utf8').trim()),
    cgroups: cgroupMode(),
    isVirtual: /^flags.* hypervisor\b/m.test(tolerant(() => readFileSync('/proc/cpuinfo', 'utf8')) ?? ''),
    node: process.version,
  }
  return { ...host, warnings: warningsOf(host) }
}

function warningsOf({ load, cpus, governor, cgroups }: Omit<Host, 'warnings'>): string[] {
  const warnings: string[] = []
  if (load > LOAD_PER_CPU_MAX * cpus) {
    warnings.push(
      `the load was ${load.toFixed(2)} on ${cpus} processors before the start: others' work is in every number`,
    )
  }
  if (cpus < 2) warnings.push('one processor: who measures and what is measured take turns')
  if (governor !== null && governor !== 'performance') {
    warnings.push(`the frequency governor is ${governor}: short calls run at any clock rate`)
  }
  if (cgroups === 'none') warnings.push('no cgroups: no limit is enforced, so ours does less than it would')
  return warnings
}

function cgroupMode(): Host['cgroups'] {
  const mounts = tolerant(() => readFileSync('/proc/self/mountinfo', 'utf8')) ?? ''
  const hasV1 = / - cgroup /.test(mounts)
  const hasV2 = / - cgroup2 /.test(mounts)
  if (hasV1) return hasV2 ? 'hybrid' : 'v1'
  return hasV2 ? 'v2' : 'none'
}

function tolerant<T>(read: () => T): T | null {
  try {
    return read()
  } catch {
    return null
  }
}
