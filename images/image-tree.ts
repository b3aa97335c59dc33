// What an image holds, read from the tars of its layers: a merged tree whose files can be read from where they lie in
// a layer. Each layer is checked against its digest and indexed once in the life of the process.
import { open } from 'node:fs/promises'
import { PlatformError } from '../contract/errors.ts'
import type { Store } from './store.ts'
import { readTar, type TarEntry } from './tar.ts'
import { ImageTree, type TreeNode } from './tree.ts'

export interface StoredNode extends TreeNode {
  /** The layer that holds the content, and where in its tar. */
  readonly layer: string
  readonly offset: number
  readonly size: number
}

/** Layers of a few images; one of 20,000 entries takes some 5 MiB. Guess; nothing depends on it. */
const LAYERS_CACHED_MAX = 32
type Entry = TarEntry & { readonly type: TreeNode['type'] }

const indexes = new WeakMap<Store, Map<string, Promise<readonly Entry[]>>>()

export async function readImageTree(layers: readonly string[], store: Store): Promise<ImageTree<StoredNode>> {
  const tree = new ImageTree<StoredNode>()
  for (const layer of layers) {
    for (const { path, type, mode, linkname, offset, size } of await indexOf(layer, store)) {
      tree.set(path, { type, mode, target: type === 'symlink' ? linkname : '', layer, offset, size })
    }
  }
  return tree
}

/** Reads from a file of the image; fewer bytes than asked for at its end. */
export async function readStored(
  node: StoredNode,
  store: Store,
  range: { offset: number; length: number },
): Promise<Buffer> {
  const length = Math.max(0, Math.min(range.length, node.size - range.offset))
  const file = await open(store.blobPath(node.layer))
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, node.offset + range.offset)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

async function indexOf(layer: string, store: Store): Promise<readonly Entry[]> {
  const cached = indexes.get(store) ?? new Map<string, Promise<readonly Entry[]>>()
  indexes.set(store, cached)
  const known = cached.get(layer)
  if (known) return await known
  const index = readIndex(layer, store)
  cached.set(layer, index)
  // A layer that could not be read is tried anew: the image may have been built again.
  index.catch(() => cached.delete(layer))
  for (const oldest of cached.keys()) {
    if (cached.size <= LAYERS_CACHED_MAX) break
    cached.delete(oldest)
  }
  return await index
}

async function readIndex(layer: string, store: Store): Promise<readonly Entry[]> {
  await store.verifyBlob(layer)
  const file = await open(store.blobPath(layer))
  try {
    const entries: Entry[] = []
    for await (const entry of readTar(file, (await file.stat()).size)) {
      // The root itself may be listed; its mode is the sandbox's matter.
      if (entry.path !== '') entries.push(requireSupported(entry))
    }
    return entries
  } finally {
    await file.close()
  }
}

/** What unpacking refuses is refused here already: no builder of ours makes it. */
function requireSupported(entry: TarEntry): Entry {
  const { path, type } = entry
  const isDeletion = path.slice(path.lastIndexOf('/') + 1).startsWith('.wh.')
  if (type !== 'hardlink' && type !== 'other' && !isDeletion) return { ...entry, type }
  const kind = isDeletion ? 'a deletion' : type === 'hardlink' ? 'a hard link' : 'a device or a pipe'
  throw new PlatformError('INVALID_IMAGE', `/${path} is ${kind}, which is not supported in a layer`)
}
