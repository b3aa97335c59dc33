// Starts the guest and waits for its end: console to our output, results from the last disk, a hard end to all of it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir } from 'node:fs/promises'
import path from 'node:path'
import { type Context, run } from './context.ts'
import type { Machine } from './image.ts'

/** Emulation unless asked: a /dev/kvm that opens, and even makes a processor, may still not run this kernel. */
export type Accelerator = 'kvm' | 'tcg'

export interface Disks {
  readonly project: string
  readonly jobs: string
  readonly results: string
}

export interface BootOptions {
  readonly accelerator: Accelerator
  /** The hard end, whatever the guest does. */
  readonly timeoutMs: number
}

/** tsc=reliable: the default clock source makes reading the clock ten times slower under emulation. */
const KERNEL_ARGUMENTS = 'console=ttyS0 quiet panic=-1 cgroup_no_v1=all tsc=reliable root=/dev/nvme0n1 rw init=/init'
const MEMORY_MIB = 3072

/** Some hosts refuse to set the register behind that one feature, and no test needs it. */
const CPU = 'max,arch-capabilities=off'

/** Runs the guest to its end and returns the folder with what each job left there. */
export async function boot(context: Context, machine: Machine, disks: Disks, options: BootOptions): Promise<string> {
  const timeout = AbortSignal.timeout(options.timeoutMs)
  const qemu = spawn('qemu-system-x86_64', qemuArguments(machine, disks, options.accelerator), {
    signal: AbortSignal.any([context.signal, timeout]),
    killSignal: 'SIGKILL',
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  // The serial line ends its lines with CR LF.
  qemu.stdout.setEncoding('utf8').on('data', (text: string) => process.stdout.write(text.replaceAll('\r', '')))
  await once(qemu, 'close').catch((error: unknown) => {
    if (timeout.aborted) throw new Error(`The guest had not ended after ${options.timeoutMs / 1000} s and was killed.`)
    throw error
  })
  const results = path.join(context.temporary, 'results')
  await mkdir(results)
  // QEMU's own status is 0 for a panic too: what counts is that the report is there.
  await run(context, 'tar', ['xf', disks.results, '--no-same-owner', '-C', results])
  if ((await readdir(results)).length === 0) throw new Error('The guest ended without a report: see its console above.')
  return results
}

/**
 * Emulation runs both processors in turn in one thread. With a thread each, one run of four froze: the kernel patches its
 * scheduler's code when the first CPU quota appears (int3 first), and QEMU 7.2 goes on executing what was there.
 */
function qemuArguments(machine: Machine, disks: Disks, accelerator: Accelerator): string[] {
  // One controller with a namespace per disk: their names, nvme0n1 to nvme0n4, do not depend on probing order.
  const files = [machine.rootDisk, disks.project, disks.jobs, disks.results]
  const drives = files.flatMap((file, index) => {
    const snapshot = file === disks.results ? 'off' : 'on'
    const escaped = file.replaceAll(',', ',,')
    return [
      ...['-drive', `file=${escaped},format=raw,if=none,id=disk${index},snapshot=${snapshot}`],
      ...['-device', `nvme-ns,drive=disk${index},bus=nvme,nsid=${index + 1}`],
    ]
  })
  return [
    ...['-accel', accelerator === 'tcg' ? 'tcg,thread=single' : 'kvm'],
    ...['-smp', '2', '-m', String(MEMORY_MIB), '-cpu', CPU],
    ...['-display', 'none', '-nodefaults', '-no-reboot', '-serial', 'stdio'],
    ...['-kernel', machine.kernel, '-append', KERNEL_ARGUMENTS],
    ...['-device', 'nvme,id=nvme,serial=mayfly', ...drives],
  ]
}
