// Which Debian packages the guest is made of, and how they get here. Everything is downloaded and unpacked into the
// cache folder; nothing is installed on this machine.

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { type Context, run, step } from './context.ts'

/** Depends on the current kernel package; its own content is empty. */
const KERNEL_META = 'linux-image-cloud-amd64'

/** A shell, what node and the addon link to, and newuidmap with what it links to. */
const USERLAND = [
  'busybox-static',
  'libc6',
  'libgcc-s1',
  'libstdc++6',
  'uidmap',
  'libaudit1',
  'libcap-ng0',
  'libpcre2-8-0',
  'libselinux1',
]

/** Programs of this machine, each with the package that has it. */
const TOOLS: Readonly<Record<string, string>> = {
  'qemu-system-x86_64': 'qemu-system-x86',
  mksquashfs: 'squashfs-tools',
  mke2fs: 'e2fsprogs',
  'apt-get': 'apt',
  'dpkg-deb': 'dpkg',
  git: 'git',
  gcc: 'gcc',
}

export interface Packages {
  /** All packages unpacked over each other. */
  readonly folder: string
  /** Differs when any package's version does. */
  readonly key: string
}

/** Names what is missing here, and the command that mends it. */
export function requireTools(): void {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(`The guest is an x86-64 Debian; this is ${process.platform} on ${process.arch}.`)
  }
  // mke2fs is in /usr/sbin, which an ordinary user's PATH may lack.
  process.env['PATH'] = `${process.env['PATH']}:/usr/sbin:/sbin`
  const folders = process.env['PATH'].split(':')
  const missing = Object.entries(TOOLS).filter(
    ([tool]) => !folders.some((folder) => existsSync(path.join(folder, tool))),
  )
  if (missing.length === 0) return
  const packages = missing.map(([, name]) => name)
  throw new Error(`Run \`node cli/setup.mjs --vm\` or \`apt-get install ${packages.join(' ')}\` first.`)
}

/** The packages of this machine's Debian release, unpacked; from the cache when it has these versions. */
export async function fetchPackages(context: Context): Promise<Packages> {
  const wanted = await step('resolve packages', () => resolveOrUpdate(context))
  const key = createHash('sha256').update(wanted.join('\n')).digest('hex').slice(0, 16)
  const folder = path.join(context.cache, `packages-${key}`)
  if (!existsSync(folder)) {
    const downloaded = await step(`download ${wanted.length} packages`, () => download(context, wanted))
    await step('unpack them', () => unpack(context, downloaded, folder))
  }
  return { folder, key }
}

/** Package lists may be absent on a fresh machine: then they are fetched once. */
async function resolveOrUpdate(context: Context): Promise<string[]> {
  const known = await resolve(context)
  if (known !== undefined) return known
  await updateLists(context)
  const updated = await resolve(context)
  if (updated === undefined)
    throw new Error(`apt has no ${KERNEL_META} or not all of ${USERLAND.join(', ')}: is this Debian?`)
  return updated
}

async function updateLists(context: Context): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('The package lists are missing or old: run `apt-get update` as root.')
  await run(context, 'apt-get', ['update', '-q'])
}

/** `name=version` of each package, or undefined when apt does not know one. */
async function resolve(context: Context): Promise<string[] | undefined> {
  const depends = await run(context, 'apt-cache', ['depends', KERNEL_META]).catch(() => '')
  const kernel = /Depends: (linux-image-\S+)/.exec(depends)?.[1]
  if (kernel === undefined) return undefined
  const names = [kernel, ...USERLAND]
  const policy = await run(context, 'apt-cache', ['policy', ...names])
  const versions = new Map(
    [...policy.matchAll(/^(\S+):\n.*\n {2}Candidate: (\S+)$/gm)].map(([, name, version]) => [name, version]),
  )
  const wanted = names.map((name) => ({ name, version: versions.get(name) }))
  if (wanted.some(({ version }) => version === undefined || version === '(none)')) return undefined
  return wanted.map(({ name, version }) => `${name}=${version}`)
}

async function download(context: Context, wanted: string[]): Promise<string> {
  const folder = path.join(context.temporary, 'packages')
  await mkdir(folder)
  // Without its own user apt needs no readable path down to this folder.
  const args = ['-o', 'APT::Sandbox::User=root', '-q', 'download', ...wanted]
  try {
    await run(context, 'apt-get', args, { cwd: folder })
  } catch {
    // Lists older than the mirror name versions that are gone from it.
    await updateLists(context)
    await run(context, 'apt-get', args, { cwd: folder })
  }
  return folder
}

/** Keeps modes, the setuid bit of newuidmap among them. The rename makes the folder whole or absent. */
async function unpack(context: Context, downloaded: string, folder: string): Promise<void> {
  // Beside the target, since a rename stays within one file system; one that an earlier run left is of unknown age.
  const unpacked = `${folder}.new`
  await rm(unpacked, { recursive: true, force: true })
  await mkdir(unpacked, { mode: 0o755 })
  for (const file of await readdir(downloaded))
    await run(context, 'dpkg-deb', ['-x', path.join(downloaded, file), unpacked])
  await rm(downloaded, { recursive: true })
  await rename(unpacked, folder)
}
