// What the numbers were taken on, and why they cannot be trusted if so.
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { memAvailableKiB, tolerant } from './measure.ts'
import { sampleOthers } from './others.ts'
import type { Host } from './result.ts'

/** More of the processors than this in use by others, and tails are theirs. */
const LOAD_PER_CPU_MAX = 0.5
/** What a thousand sandboxes and the peers take, and then some. */
const AVAILABLE_KIB_MIN = 1.5 * 2 ** 20

export async function describeHost(peers: Host['peers']): Promise<Host> {
  const host = {
    kernel: release(),
    cpus: availableParallelism(),
    cpuModel: cpus()[0]?.model ?? 'unknown',
    memoryBytes: totalmem(),
    swapUsedBytes: swapUsedBytes(),
    load: loadavg()[0] ?? 0,
    governor: readText('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor'),
    hasTurbo: hasTurbo(),
    cgroups: cgroupMode(),
    isVirtual: /^flags.* hypervisor\b/m.test(readText('/proc/cpuinfo') ?? ''),
    node: process.version,
    peers,
  }
  return { ...host, warnings: [...warningsOf(host), ...(await sampleOthers())] }
}

/** What a person compares first when two results differ. */
export function factsOf(host: Host): string[] {
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(bytes < 2 ** 30 ? 1 : 0)
  const turbo = host.hasTurbo === null ? [] : [`turbo ${host.hasTurbo ? 'on' : 'off'}`]
  const swap = host.swapUsedBytes === 0 ? [] : [`${gib(host.swapUsedBytes)} GiB swapped`]
  return [
    `Linux ${host.kernel}`,
    `${host.cpus} × ${host.cpuModel}${host.isVirtual ? ' (virtual)' : ''}`,
    `${gib(host.memoryBytes)} GiB`,
    ...swap,
    `cgroups ${host.cgroups}`,
    `governor ${host.governor ?? 'unknown'}`,
    ...turbo,
    `Node ${host.node}`,
    `load ${host.load.toFixed(2)}`,
  ]
}

export function peersOf({ peers }: Host): string[] {
  return Object.entries(peers).map(([name, version]) => `${name} ${version}`)
}

function warningsOf({ load, cpus, governor, cgroups, isVirtual }: Omit<Host, 'warnings'>): string[] {
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
  if (governor === null && !isVirtual)
    warnings.push('the clock rate is not ours to see: it may differ from call to call')
  if (cgroups === 'none') warnings.push('no cgroups: no limit is enforced, so ours does less than it would')
  const availableKiB = memAvailableKiB()
  if (availableKiB < AVAILABLE_KIB_MIN) {
    warnings.push(
      `${(availableKiB / 1024).toFixed(0)} MiB of memory available: what many sandboxes take may be swapped`,
    )
  }
  return warnings
}

function cgroupMode(): Host['cgroups'] {
  const mounts = readText('/proc/self/mountinfo') ?? ''
  const hasV1 = / - cgroup /.test(mounts)
  const hasV2 = / - cgroup2 /.test(mounts)
  if (hasV1) return hasV2 ? 'hybrid' : 'v1'
  return hasV2 ? 'v2' : 'none'
}

/** Intel's driver says whether it is off, the others whether it is on. */
function hasTurbo(): boolean | null {
  const isOff = readText('/sys/devices/system/cpu/intel_pstate/no_turbo')
  if (isOff !== null) return isOff === '0'
  const isOn = readText('/sys/devices/system/cpu/cpufreq/boost')
  return isOn === null ? null : isOn === '1'
}

function swapUsedBytes(): number {
  const text = readText('/proc/meminfo') ?? ''
  const kib = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0)
  return (kib('SwapTotal') - kib('SwapFree')) * 1024
}

function readText(path: string): string | null {
  return tolerant(() => readFileSync(path, 'utf8').trim())
}
