// Whether a function could start at all: its command, the interpreter or loader behind it and its working directory
// are looked for in the image's layers, as the kernel will. Said at deploy, where someone reads it.
import { posix } from 'node:path'
import { PlatformError } from '../contract/errors.ts'
import type { FunctionSpec, Image } from '../contract/function.ts'
import { readElf } from './elf.ts'
import { PATH_DEFAULT } from './image-config.ts'
import { readImageTree, readStored, type StoredNode } from './image-tree.ts'
import { parseShebang, SHEBANG_BYTES } from './shebang.ts'
import type { Store } from './store.ts'
import type { ImageTree } from './tree.ts'

/** Folders every sandbox has, whatever its image holds. */
const FOLDERS_OF_SANDBOX = ['/', '/tmp', '/dev/shm']
/** Scripts may be interpreted by scripts; the kernel follows five. */
const INTERPRETERS_MAX = 5

interface Check {
  readonly tree: ImageTree<StoredNode>
  readonly store: Store
  readonly spec: CommandSpec
}

type CommandSpec = Pick<FunctionSpec, 'argv' | 'env' | 'cwd'>

/** The absolute path to execute, or INVALID_MANIFEST for what is not there and INVALID_IMAGE for what cannot run. */
export async function checkCommand(image: Pick<Image, 'layers'>, store: Store, spec: CommandSpec): Promise<string> {
  const check: Check = { tree: await readImageTree(image.layers, store), store, spec }
  checkCwd(check)
  const path = findCommand(check)
  await checkProgram(path, check, 0)
  return path
}

function checkCwd({ tree, spec }: Check): void {
  if (FOLDERS_OF_SANDBOX.includes(spec.cwd)) return
  const { node } = tree.resolve(spec.cwd)
  if (node === undefined) throw new PlatformError('INVALID_MANIFEST', `cwd: the image has no folder ${spec.cwd}`)
  if (node.type !== 'directory')
    throw new PlatformError('INVALID_MANIFEST', `cwd: ${spec.cwd} is no folder in the image`)
  refuseClosed(spec.cwd, tree, 'cwd')
  if (!isForOthers(node.mode)) throw closed('cwd', spec.cwd, spec.cwd)
}

/** As execvp(3): a name with a slash is a path, one without is looked for on PATH. */
function findCommand({ tree, spec }: Check): string {
  const [name = ''] = spec.argv
  if (name.includes('/')) {
    const path = posix.resolve(spec.cwd, name)
    if (tree.resolve(path).node === undefined) throw missing(name, `the image has no ${path}`)
    return path
  }
  const path = findOnPath(name, { tree, spec })
  if (path === undefined) throw missing(name, `it is in none of the image's folders ${searchPath(spec)}`)
  return path
}

function findOnPath(name: string, { tree, spec }: Pick<Check, 'tree' | 'spec'>): string | undefined {
  const paths = searchPath(spec)
    .split(':')
    .map((folder) => posix.resolve(spec.cwd, folder, name))
  const isRunnable = (path: string) => {
    const { node } = tree.resolve(path)
    return node?.type === 'file' && isForOthers(node.mode)
  }
  // One that cannot be run is passed over while a later folder may have one that can.
  return paths.find(isRunnable) ?? paths.find((path) => tree.resolve(path).node !== undefined)
}

function searchPath(spec: CommandSpec): string {
  return spec.env['PATH'] ?? PATH_DEFAULT
}

async function checkProgram(path: string, check: Check, depth: number): Promise<void> {
  const node = requireRunnable(path, check.tree)
  const elf = await readElf((offset, length) => readStored(node, check.store, { offset, length }), path)
  if (elf?.foreign !== undefined)
    throw invalid(`${path} is a program for ${elf.foreign}; this machine is ${process.arch}`)
  if (elf) return elf.interpreter === undefined ? undefined : await checkLoader(elf.interpreter, path, check)
  const start = await readStored(node, check.store, { offset: 0, length: SHEBANG_BYTES })
  const shebang = parseShebang(start)
  if (shebang === undefined) {
    throw invalid(`${path} is neither an ELF program nor a script: a script's first line is #! and its interpreter`)
  }
  if (typeof shebang === 'string') throw invalid(`${path}: ${shebang}`)
  if (depth === INTERPRETERS_MAX) throw invalid(`${path}: interpreters are nested too deep`)
  if (!(node.mode & 0o004))
    throw invalid(`${path} is a script its interpreter may not read; others need r: --chmod=755`)
  await checkInterpreter(shebang.interpreter, path, { check, depth })
  if (shebang.program === undefined) return
  const program = findOnPath(shebang.program, check)
  if (program === undefined) throw invalid(`${path} is run by ${shebang.program}, which the image does not have`)
  await checkProgram(program, check, depth + 1)
}

async function checkInterpreter(
  path: string,
  script: string,
  { check, depth }: { check: Check; depth: number },
): Promise<void> {
  if (check.tree.resolve(path).node === undefined) {
    throw invalid(
      `${script} is a script for ${path}, which the image does not have; add it, or \`mayfly image pack\` the script`,
    )
  }
  await checkProgram(path, check, depth + 1)
}

async function checkLoader(loader: string, program: string, { tree, store }: Check): Promise<void> {
  if (tree.resolve(loader).node === undefined) {
    throw invalid(
      `${program} is dynamically linked and its loader ${loader} is not in the image; link it statically, or use \`mayfly image pack\``,
    )
  }
  const node = requireRunnable(loader, tree)
  const elf = await readElf((offset, length) => readStored(node, store, { offset, length }), loader)
  if (!elf) throw invalid(`${loader}, the loader of ${program}, is no ELF file`)
  if (elf.foreign !== undefined) throw invalid(`${loader}, the loader of ${program}, is for ${elf.foreign}`)
}

/** A function is neither owner nor group of what its image holds: the bits for others count. */
function requireRunnable(path: string, tree: ImageTree<StoredNode>): StoredNode {
  const { node, path: real } = tree.resolve(path)
  if (node === undefined) throw invalid(`${path} leads nowhere in the image`)
  if (node.type !== 'file') throw invalid(`${path} is a folder, not a program`)
  if (!isForOthers(node.mode)) {
    throw invalid(
      `${path} is not executable for others (mode ${octal(node.mode)}); set it with COPY --chmod=755 or chmod`,
    )
  }
  refuseClosed(real, tree, 'command')
  return tree.get(real) as StoredNode
}

/** Every folder on the way needs x for others. */
function refuseClosed(path: string, tree: ImageTree<StoredNode>, what: string): void {
  const { path: real } = tree.resolve(path)
  const parts = real.split('/').slice(0, -1)
  for (const [index] of parts.entries()) {
    const folder = parts.slice(0, index + 1).join('/')
    const node = tree.get(folder)
    if (node && !isForOthers(node.mode)) throw closed(what, path, `/${folder}`)
  }
}

function isForOthers(mode: number): boolean {
  return (mode & 0o001) !== 0
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0')
}

function missing(name: string, problem: string): PlatformError {
  return new PlatformError(
    'INVALID_MANIFEST',
    `command: ${JSON.stringify(name.slice(0, 200))} cannot be run: ${problem}`,
  )
}

function closed(what: string, path: string, folder: string): PlatformError {
  return invalid(`${what}: ${path} cannot be reached: the folder ${folder} has no x for others`)
}

function invalid(problem: string): PlatformError {
  return new PlatformError('INVALID_IMAGE', problem)
}
