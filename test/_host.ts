// What the host looks like from outside of every sandbox: the things an escape would change or a leak would leave.
import { readdirSync, readFileSync, readlinkSync, rmdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

export interface Audit {
  /** Processes under ids of the pool, by name, sorted. */
  readonly processes: readonly string[]
  /** Folders of the pool's instance in any hierarchy, without the groups that are kept for the next sandbox. */
  readonly cgroups: number
  /** /proc/self/mountinfo of the host's mount namespace. */
  readonly mounts: string
  /** How many namespaces of each kind the pool's processes are in. */
  readonly namespaces: Readonly<Record<string, number>>
  /** Of this process, which holds the worker, without the files of such groups. */
  readonly descriptors: number
}

export const NAMESPACES = ['user', 'mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup', 'time']
const UID_COUNT = 65_536
/**
 * First of the ids of this process's pools. Neither the default nor another test's, so that a server or a second run
 * of the tests on this host is not counted.
 */
export const UID_BASE = 0x7100_0000 + (process.pid % 4096) * UID_COUNT

export function audit(instance: string): Audit {
  const ours = processesOfPool()
  const nodes = cgroupMounts().map((mount) => join(mount, `mayfly-${UID_BASE}`, instance))
  const kept = new Set(nodes.flatMap(emptyLeavesOf))
  return {
    processes: ours.map(({ name }) => name).sort(),
    cgroups: nodes.reduce((sum, node) => sum + foldersAt(node) - emptyLeavesOf(node).length, 0),
    mounts: readFileSync('/proc/self/mountinfo', 'utf8'),
    namespaces: Object.fromEntries(NAMESPACES.map((kind) => [kind, countNamespaces(ours, kind)])),
    descriptors: readdirSync('/proc/self/fd').filter((fd) => !kept.has(leafOf(fd))).length,
  }
}

/** As `f1/s2`: groups that wait, with nobody in them, for the next sandbox of a slot; how many is up to the kernel. */
function emptyLeavesOf(node: string): string[] {
  const functions = foldersIn(node)
  const leaves = functions.flatMap((of) => foldersIn(join(node, of)).map((leaf) => join(of, leaf)))
  return leaves.filter((leaf) => tolerant(() => readFileSync(join(node, leaf, 'cgroup.procs'), 'utf8')) === '')
}

function foldersIn(path: string): string[] {
  const entries = tolerant(() => readdirSync(path, { withFileTypes: true })) ?? []
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name)
}

/** The leaf, as `f1/s2`, whose file this descriptor of ours is. */
function leafOf(fd: string): string {
  const path = tolerant(() => readlinkSync(`/proc/self/fd/${fd}`)) ?? ''
  return /\/(f\d+\/s\d+)\/[^/]+$/.exec(path)?.[1] ?? ''
}

/** Removes the nodes that a pool of these ids leaves for the next one, which no other test will be. */
export function removeNodes(): void {
  for (const mount of cgroupMounts()) tolerant(() => rmdirSync(join(mount, `mayfly-${UID_BASE}`)))
}

export interface HostProcess {
  readonly pid: number
  readonly name: string
  readonly uid: number
}

/** Every process whose real, effective, saved or file-system id belongs to the pool. */
export function processesOfPool(): HostProcess[] {
  return processes().filter(({ uids }) => uids.some((uid) => uid >= UID_BASE && uid < UID_BASE + UID_COUNT))
}

/** Every process of the host, with its four user ids. */
export function processes(): (HostProcess & { readonly uids: readonly number[] })[] {
  return pids().flatMap((pid) => {
    const status = tolerant(() => readFileSync(`/proc/${pid}/status`, 'utf8'))
    // A zombie is still a process, for it holds a place in its pids cgroup; but one whose parent is the host's init is
    // only waiting for that one's round.
    if (status !== undefined && /^State:\tZ/m.test(status) && /^PPid:\t1$/m.test(status)) return []
    const uids = /^Uid:\t(.*)$/m
      .exec(status ?? '')?.[1]
      ?.split('\t')
      .map(Number)
    const name = /^Name:\t(.*)$/m.exec(status ?? '')?.[1]
    return uids?.[0] === undefined || name === undefined ? [] : [{ pid, name, uid: uids[0], uids }]
  })
}

/** How many descriptors a process holds. */
export function descriptorsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

/**
 * Waits until the host looks as it did: sandboxes end after their answer and are replaced in the background. Returns
 * the last look, so that a test's own comparison says what differs.
 */
export async function auditSettled(instance: string, expected: Audit, deadlineMs = 10_000): Promise<Audit> {
  const wanted = JSON.stringify(expected)
  const end = performance.now() + deadlineMs
  for (;;) {
    const seen = audit(instance)
    if (JSON.stringify(seen) === wanted || performance.now() > end) return seen
    await delay(20)
  }
}

/** The host once nothing changes any more: a moment after a build the next sandbox's namespaces are made. */
export async function auditAtRest(instance: string): Promise<Audit> {
  for (let before = audit(instance); ; ) {
    await delay(20)
    const seen = audit(instance)
    if (JSON.stringify(seen) === JSON.stringify(before)) return seen
    before = seen
  }
}

function pids(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
}

/** The inode of each namespace a process is in. */
export function namespacesOf(pid: number): Readonly<Record<string, string>> {
  return Object.fromEntries(NAMESPACES.map((kind) => [kind, readlinkSync(`/proc/${pid}/ns/${kind}`)]))
}

function countNamespaces(among: readonly HostProcess[], kind: string): number {
  return new Set(among.flatMap(({ pid }) => tolerant(() => readlinkSync(`/proc/${pid}/ns/${kind}`)) ?? [])).size
}

/** A process may end between its listing and the look at it. */
function tolerant<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch {
    return undefined
  }
}

function cgroupMounts(): string[] {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  return lines.filter((line) => / - cgroup2? /.test(line)).map((line) => line.split(' ')[4] ?? '')
}

/** The folder itself, if it is there, and all below it. */
function foldersAt(path: string): number {
  if (!tolerant(() => statSync(path))?.isDirectory()) return 0
  const names = tolerant(() => readdirSync(path)) ?? []
  return names.reduce((sum, name) => sum + foldersAt(join(path, name)), 1)
}
