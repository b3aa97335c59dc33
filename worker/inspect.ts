// What a sandbox is, read from outside: /proc of the host says what the kernel enforces, whatever we meant to set.
import { readdir, readFile, readlink } from 'node:fs/promises'
import { PlatformError } from '../contract/errors.ts'

export interface SandboxReport {
  readonly id: string
  readonly function: string
  readonly state: string
  readonly hostPid: number
  /** Inode of each namespace, and whether this process has another one. */
  readonly namespaces: Readonly<Record<string, { readonly inode: number; readonly isOwn: boolean }>>
  /** Lines of mountinfo(5). */
  readonly mounts: readonly string[]
  /** Each group with the limits that stand in its files now. */
  readonly cgroups: readonly { readonly path: string; readonly limits: Readonly<Record<string, string>> }[]
  readonly ids: {
    readonly uid: string
    readonly gid: string
    readonly groups: string
    readonly uidMap: readonly string[]
  }
  /** Inheritable, permitted, effective, bounding, ambient: hexadecimal masks. */
  readonly capabilities: Readonly<Record<string, string>>
  readonly noNewPrivs: boolean
  readonly seccomp: { readonly mode: string; readonly filters: number }
  /** Lines of /proc/PID/limits. */
  readonly limits: readonly string[]
  /** What each descriptor is; null where this process may not look: it takes root, or the function's own id. */
  readonly descriptors: Readonly<Record<string, string>> | null
}

/** Namespaces of a task, by their names in /proc/PID/ns. */
const NAMESPACES = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'] as const
const CAPABILITY_SETS = ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'] as const

/** SANDBOX_NOT_FOUND when the process ended meanwhile. */
export async function inspectProcess(
  sandbox: Pick<SandboxReport, 'id' | 'function' | 'state' | 'hostPid'>,
): Promise<SandboxReport> {
  const root = `/proc/${sandbox.hostPid}`
  try {
    const [status, mounts, cgroups, uidMap, limits, namespaces, descriptors] = await Promise.all([
      readFile(`${root}/status`, 'utf8'),
      lines(`${root}/mountinfo`),
      readCgroups(root),
      lines(`${root}/uid_map`),
      lines(`${root}/limits`),
      readNamespaces(root),
      readDescriptors(root),
    ])
    const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? ''
    return {
      ...sandbox,
      namespaces,
      mounts,
      cgroups,
      ids: { uid: field('Uid'), gid: field('Gid'), groups: field('Groups').trim(), uidMap },
      capabilities: Object.fromEntries(CAPABILITY_SETS.map((set) => [set, field(set)])),
      noNewPrivs: field('NoNewPrivs') === '1',
      seccomp: {
        mode: SECCOMP_MODES[Number(field('Seccomp'))] ?? 'unknown',
        filters: Number(field('Seccomp_filters')),
      },
      limits,
      descriptors,
    }
  } catch (cause) {
    throw new PlatformError('SANDBOX_NOT_FOUND', `sandbox ${sandbox.id} ended while it was looked at`, { cause })
  }
}

/** `Seccomp:` in proc_pid_status(5). */
const SECCOMP_MODES = ['disabled', 'strict', 'filter']

async function readNamespaces(root: string): Promise<SandboxReport['namespaces']> {
  const read = async (name: string) => {
    const [theirs, ours] = await Promise.all([readlink(`${root}/ns/${name}`), readlink(`/proc/self/ns/${name}`)])
    const inode = Number(/\[(\d+)\]/.exec(theirs)?.[1])
    return [name, { inode, isOwn: theirs !== ours }] as const
  }
  return Object.fromEntries(await Promise.all(NAMESPACES.map(read)))
}

/** The limits of both cgroup versions, by their files; which of them there are tells the version. */
const LIMIT_FILES = [
  ...['cpu.cfs_quota_us', 'cpu.cfs_period_us', 'cpu.shares', 'memory.limit_in_bytes', 'memory.memsw.limit_in_bytes'],
  ...['cpu.max', 'cpu.weight', 'memory.max', 'memory.swap.max', 'memory.oom.group', 'pids.max'],
]

/** The groups of ours that the process is in. */
async function readCgroups(root: string): Promise<SandboxReport['cgroups']> {
  const mounts = (await lines('/proc/self/mountinfo')).map((line) => line.split(' '))
  const memberships = (await lines(`${root}/cgroup`)).map((line) => line.split(':'))
  const ours = memberships.filter(([, , path]) => path?.includes('/mayfly-'))
  return await Promise.all(
    ours.map(async ([, controllers = '', path = '']) => {
      const isOfHierarchy = (mount: string[]) =>
        controllers === '' ? mount.includes('cgroup2') : mount.at(-1)?.endsWith(`,${controllers}`)
      const group = `${mounts.find(isOfHierarchy)?.[4] ?? ''}${path}`
      const read = LIMIT_FILES.map(async (name) => [name, (await readFile(`${group}/${name}`, 'utf8')).trim()] as const)
      const found = (await Promise.allSettled(read)).flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
      return { path: group, limits: Object.fromEntries(found) }
    }),
  )
}

async function readDescriptors(root: string): Promise<Record<string, string> | null> {
  const numbers = await readdir(`${root}/fd`).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EACCES') return null
    throw error
  })
  if (numbers === null) return null
  return Object.fromEntries(
    await Promise.all(numbers.map(async (number) => [number, await readlink(`${root}/fd/${number}`)] as const)),
  )
}

async function lines(path: string): Promise<string[]> {
  return (await readFile(path, 'utf8')).trimEnd().split('\n')
}
