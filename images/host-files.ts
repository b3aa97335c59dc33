// How files of this machine get into a layer under the path they have here: symbolic links on the way are kept, so
// that a loader finds in the image what it finds on the host.
import { lstat, readdir, readlink } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { PlatformError } from '../contract/errors.ts'
import { readNode } from './context.ts'
import { type LayerDraft, type LayerNode, linkNode } from './layer.ts'
import { components } from './tree.ts'

/** As the kernel's MAXSYMLINKS. */
const SYMLINKS_MAX = 40

/** Adds a file or an empty folder with every link that leads to it, and returns its real path. */
export async function addWithLinks(path: string, layer: LayerDraft): Promise<string> {
  let rest = components(path)
  let real = '/'
  for (let links = 0; rest.length > 0; ) {
    const part = rest.shift() as string
    const next = posix.join(real, part)
    const found = await lstat(next).catch((cause) => {
      throw new PlatformError('INVALID_IMAGE', `${path} cannot be read: ${cause.code} at ${next}`, { cause })
    })
    if (found.isSymbolicLink()) {
      if (++links > SYMLINKS_MAX) throw new PlatformError('INVALID_IMAGE', `${path} goes through a loop of links`)
      const target = await readlink(next)
      layer.place(next, linkNode(target))
      if (target.startsWith('/')) real = '/'
      rest = [...components(target), ...rest]
      continue
    }
    real = next
  }
  await addNode(real, real, layer)
  return real
}

/** Adds a file, or a folder with all below it, under another path. Links in it stay as they are. Returns its files. */
export async function addTree(from: string, to: string, layer: LayerDraft): Promise<string[]> {
  const node = await addNode(from, to, layer)
  if (node.type !== 'directory') return node.type === 'file' ? [from] : []
  const files: string[] = []
  for (const name of (await readdir(from)).sort()) {
    files.push(...(await addTree(join(from, name), posix.join(to, name), layer)))
  }
  return files
}

async function addNode(from: string, to: string, layer: LayerDraft): Promise<LayerNode> {
  const node = await readNode(from, (problem) => {
    throw new PlatformError('INVALID_IMAGE', problem)
  })
  if (node.type === 'directory') layer.ensureFolder(to)
  else layer.place(to, node.type === 'file' ? { ...node, mode: publicMode(node.mode) } : node)
  return node
}

/** A function is neither owner nor group of what its image holds: what it is given it may read, and run if it can be. */
function publicMode(mode: number): number {
  return mode & 0o111 ? 0o755 : 0o644
}
