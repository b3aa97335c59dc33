// Where a program's shared libraries lie on this machine, by the rules of its loader (ld.so(8)) without running it:
// RPATH or RUNPATH, the folders of /etc/ld.so.conf, the loader's own. LD_LIBRARY_PATH does not count: it would not be
// set in the image. Variants for newer processors (glibc-hwcaps) are passed over, for an image that runs everywhere.
import { open, readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type Elf, type ReadAt, readElf } from './elf.ts'
import { compilePattern } from './patterns.ts'

/** Compiled into glibc, with Debian's multiarch folders, and into musl. */
const TRIPLET = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu'
const FOLDERS = [`/lib/${TRIPLET}`, `/usr/lib/${TRIPLET}`, '/lib64', '/usr/lib64', '/lib', '/usr/lib']
const FOLDERS_MUSL = ['/lib', '/usr/local/lib', '/usr/lib']
/** Guess; a file that includes itself must end somewhere. */
const INCLUDE_DEPTH_MAX = 8

export interface LoadedObject {
  /** The path it is loaded by: `$ORIGIN` is its folder. */
  readonly path: string
  readonly elf: Elf
  readonly loadedBy?: LoadedObject
}

/** The folders a loader searches for everything, after what an object itself says. `loader` is the PT_INTERP. */
export async function systemFolders(loader: string | undefined): Promise<readonly string[]> {
  if (loader?.includes('ld-musl-')) {
    const path = await readIfThere(`/etc/${loader.replace(/^.*\/|\.so.*$/g, '')}.path`)
    return path === undefined ? FOLDERS_MUSL : path.split(/[:\n]/).filter((folder) => folder.startsWith('/'))
  }
  return [...(await configuredFolders('/etc/ld.so.conf', 0)), ...FOLDERS]
}

/** The path by which the loader would load `name` for `object`. What is there for another machine is passed over. */
export async function findLibrary(
  name: string,
  object: LoadedObject,
  folders: readonly string[],
): Promise<LoadedObject | undefined> {
  const candidates = name.includes('/')
    ? [name]
    : [...ownFolders(object), ...folders].map((folder) => join(folder, name))
  for (const path of candidates) {
    const elf = await readElfFile(path)
    if (elf && elf.foreign === undefined) return { path, elf, loadedBy: object }
  }
  return undefined
}

/** Undefined when it is no ELF file, or not there. */
export async function readElfFile(path: string): Promise<Elf | undefined> {
  const file = await open(path).catch(() => undefined)
  if (!file) return undefined
  try {
    const read: ReadAt = async (offset, length) => {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset)
      return buffer.subarray(0, bytesRead)
    }
    return (await file.stat()).isFile() ? await readElf(read, path) : undefined
  } finally {
    await file.close()
  }
}

/** RUNPATH is for the object alone; RPATH, where there is no RUNPATH, also for what it loads. */
function ownFolders(object: LoadedObject): string[] {
  if (object.elf.runpath !== undefined) return expandList(object.elf.runpath, object.path)
  const folders: string[] = []
  for (let at: LoadedObject | undefined = object; at; at = at.loadedBy) {
    if (at.elf.runpath === undefined && at.elf.rpath !== undefined) folders.push(...expandList(at.elf.rpath, at.path))
  }
  return folders
}

/** Relative folders would depend on where the program is started: they are left out, as are $LIB and $PLATFORM. */
function expandList(list: string, path: string): string[] {
  return list
    .split(':')
    .map((folder) => folder.replace(/\$(ORIGIN|\{ORIGIN\})/g, dirname(path)))
    .filter((folder) => folder.startsWith('/') && !folder.includes('$'))
}

async function configuredFolders(file: string, depth: number): Promise<string[]> {
  const text = (await readIfThere(file)) ?? ''
  const folders: string[] = []
  for (const line of text.split('\n').map((line) => line.replace(/#.*/, '').trim())) {
    const [, pattern] = /^include\s+(.+)$/.exec(line) ?? []
    if (line.startsWith('/')) folders.push(line)
    else if (pattern !== undefined && depth < INCLUDE_DEPTH_MAX) {
      for (const included of await expandInclude(join(dirname(file), pattern), pattern)) {
        folders.push(...(await configuredFolders(included, depth + 1)))
      }
    }
  }
  return folders
}

/** An include is absolute or relative to its file; wildcards stand in its last component. */
async function expandInclude(relative: string, pattern: string): Promise<string[]> {
  const path = pattern.startsWith('/') ? pattern : relative
  const names = await readdir(dirname(path)).catch(() => [])
  const expression = compilePattern(path.slice(path.lastIndexOf('/') + 1))
  return names
    .filter((name) => expression.test(name))
    .sort()
    .map((name) => join(dirname(path), name))
}

async function readIfThere(path: string): Promise<string | undefined> {
  return await readFile(path, 'utf8').catch(() => undefined)
}
