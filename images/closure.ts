// How a program of this machine becomes an image: the program, its loader and every library it names, or, for a
// script, its interpreter likewise. What a program opens by itself later (plug-ins, data) is for `include` to add.
import { open } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { PlatformError } from '../contract/errors.ts'
import type { Image } from '../contract/function.ts'
import { addTree, addWithLinks } from './host-files.ts'
import { PATH_DEFAULT } from './image-config.ts'
import { LayerDraft, linkNode } from './layer.ts'
import { findLibrary, type LoadedObject, readElfFile, systemFolders } from './libraries.ts'
import { parseShebang, SHEBANG_BYTES } from './shebang.ts'
import type { Store } from './store.ts'

export interface PackOptions {
  readonly path: string
  readonly tag?: string
  readonly store: Store
  /** Files and folders copied as they are, under their own path or another; libraries they need come too. */
  readonly include?: readonly (string | { readonly from: string; readonly to: string })[]
  /** Folders that hold libraries, before those this machine is configured for. */
  readonly libraryFolders?: readonly string[]
  /** The program alone unless given. */
  readonly entrypoint?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** SOURCE_DATE_EPOCH: the time of every entry and of the image, in seconds. */
  readonly epochSeconds?: number
  /** Told a line per finding, for a person to read. */
  readonly onProgress?: (line: string) => void
}

/** A pack under way: `seen` are the real paths that are in the layer. */
interface Pack {
  readonly layer: LayerDraft
  readonly seen: Set<string>
  readonly libraryFolders: readonly string[]
  readonly say: (line: string) => void
}

/** Scripts may be interpreted by scripts; the kernel follows five. */
const INTERPRETERS_MAX = 5

export async function packBinary(options: PackOptions): Promise<Image> {
  const { libraryFolders = [], onProgress: say = () => {} } = options
  const pack: Pack = { layer: new LayerDraft(), seen: new Set(), libraryFolders, say }
  const path = resolve(options.path)
  await addProgram(path, pack, 0)
  for (const item of options.include ?? []) await addIncluded(item, pack)
  pack.say(`writing a layer of ${pack.seen.size} programs and libraries`)
  const image = await options.store.putImage({
    config: {
      entrypoint: options.entrypoint ?? [path],
      cmd: [],
      env: { PATH: PATH_DEFAULT, ...options.env },
      workingDir: '/',
      user: '',
      labels: {},
    },
    layers: [await pack.layer.write(options.store, options.epochSeconds ?? 0)],
    ...(options.epochSeconds !== undefined && { createdSeconds: options.epochSeconds }),
  })
  if (options.tag !== undefined) await options.store.tag(options.tag, image.digest)
  pack.say(`${options.tag ?? 'image'} is ${image.digest}`)
  return image
}

async function addProgram(path: string, pack: Pack, depth: number): Promise<void> {
  const real = await addWithLinks(path, pack.layer)
  if (pack.seen.has(real)) return
  const elf = await readElfFile(real)
  if (elf?.foreign !== undefined) {
    throw new PlatformError('INVALID_IMAGE', `${path} is a program for ${elf.foreign}; this machine is ${process.arch}`)
  }
  pack.seen.add(real)
  if (elf) return await addLibraries({ path: real, elf }, pack, 'required')
  const shebang = parseShebang(await readStart(real))
  if (shebang === undefined)
    throw new PlatformError('INVALID_IMAGE', `${path} is neither an ELF program nor a script with a #! line`)
  if (typeof shebang === 'string') throw new PlatformError('INVALID_IMAGE', `${path}: ${shebang}`)
  if (depth === INTERPRETERS_MAX) throw new PlatformError('INVALID_IMAGE', `${path}: interpreters are nested too deep`)
  const interpreters = [shebang.interpreter]
  if (shebang.program !== undefined) interpreters.push(await findOnPath(shebang.program, path))
  pack.say(`${path} is a script; ${interpreters.join(' and ')} is packed too`)
  for (const interpreter of interpreters) await addProgram(interpreter, pack, depth + 1)
}

/** The loader and the libraries of an object, and of those in turn. `optional` ones that are missing are only said. */
async function addLibraries(start: LoadedObject, pack: Pack, need: 'required' | 'optional'): Promise<void> {
  const folders = [...pack.libraryFolders, ...(await systemFolders(start.elf.interpreter))]
  if (start.elf.interpreter !== undefined) pack.seen.add(await addWithLinks(start.elf.interpreter, pack.layer))
  const found: { readonly name: string; readonly path: string; readonly real: string }[] = []
  for (const queue: LoadedObject[] = [start]; queue.length > 0; ) {
    const object = queue.shift() as LoadedObject
    for (const name of object.elf.needed) {
      const library = await findLibrary(name, object, folders)
      if (!library) {
        refuseMissing(name, object, { pack, need })
        continue
      }
      const real = await addWithLinks(library.path, pack.layer)
      found.push({ name, path: library.path, real })
      if (pack.seen.has(real)) continue
      pack.seen.add(real)
      pack.say(`${name} from ${library.path}`)
      queue.push(library)
    }
  }
  linkBesideLibc(found, folders, pack.layer)
}

/**
 * The image has no ld.so.cache, so its loader searches only the folders compiled into it. The one that holds libc is
 * such a folder on every distribution; a library found elsewhere by configuration gets a link there.
 */
function linkBesideLibc(
  found: readonly { readonly name: string; readonly path: string; readonly real: string }[],
  folders: readonly string[],
  layer: LayerDraft,
): void {
  const libc = found.find(({ name }) => /^libc\.(so|musl)/.test(name))
  if (!libc) return
  for (const { name, path, real } of found) {
    const isByConfiguration = !name.includes('/') && folders.includes(dirname(path))
    if (!isByConfiguration || dirname(real) === dirname(libc.real)) continue
    layer.place(join(dirname(libc.path), name), linkNode(real))
  }
}

function refuseMissing(
  name: string,
  object: LoadedObject,
  { pack, need }: { pack: Pack; need: 'required' | 'optional' },
): void {
  const problem = `${object.path} needs ${name}, which is not on this machine`
  if (need === 'required') throw new PlatformError('INVALID_IMAGE', `${problem}; install it and pack again`)
  pack.say(`left out: ${problem}`)
}

async function addIncluded(item: NonNullable<PackOptions['include']>[number], pack: Pack): Promise<void> {
  const from = typeof item === 'string' ? await addWithLinks(resolve(item), pack.layer) : resolve(item.from)
  for (const file of await addTree(from, typeof item === 'string' ? from : item.to, pack.layer)) {
    const elf = await readElfFile(file)
    if (!elf || elf.foreign !== undefined || pack.seen.has(file)) continue
    await addLibraries({ path: file, elf }, pack, 'optional')
  }
}

async function findOnPath(program: string, script: string): Promise<string> {
  for (const folder of PATH_DEFAULT.split(':')) {
    const path = join(folder, program)
    if (
      await open(path).then(
        (file) => file.close().then(() => true),
        () => false,
      )
    )
      return path
  }
  throw new PlatformError('INVALID_IMAGE', `${script} is run by ${program}, which is not in any of ${PATH_DEFAULT}`)
}

async function readStart(path: string): Promise<Buffer> {
  const file = await open(path)
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(SHEBANG_BYTES), 0, SHEBANG_BYTES, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}
