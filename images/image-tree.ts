// What an image holds, read from the tars of its layers: a merged tree whose files can be read from where they lie in
// a layer. Each layer is checked against its digest and indexed once in the life of the process.
import { open } from 'node:fs/promises'
import { PlatformError } from '../contract/errors.ts'
import type { Store } from './store.ts'
import { readTar, type TarEntry } from './tar.ts'
import { ImageTree, parentOf, type TreeNode } from './tree.ts'

export interface StoredNode extends TreeNode {
  /** The layer that holds the content, and where in its tar. */
  readonly layer: string
  readonly offset: number
  readonly size: number
}

/** Layers of a few images; one of 20,000 entries takes some 5 MiB. Guess; nothing depends on it. */
const LAYERS_CACHED_MAX = 32
/** As overlayfs and the image-spec have them: `.wh.name` deletes name, the opaque one all that lies below. */
const WHITEOUT = '.wh.'
const OPAQUE = '.wh..wh..opq'

const indexes = new WeakMap<Store, Map<string, Promise<readonly TarEntry[]>>>()

export async function readImageTree(layers: readonly string[], store: Store): Promise<ImageTree<StoredNode>> {
  const tree = new ImageTree<StoredNode>()
  for (const layer of layers) {
    const entries = await indexOf(layer, store)
    applyWhiteouts(entries, tree)
    for (const entry of entries) applyEntry(entry, layer, tree)
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

async function indexOf(layer: string, store: Store): Promise<readonly TarEntry[]> {
  const cached = indexes.get(store) ?? new Map<string, Promise<readonly TarEntry[]>>()
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

async function readIndex(layer: string, store: Store): Promise<readonly TarEntry[]> {
  await store.verifyBlob(layer)
  const file = await open(store.blobPath(layer))
  try {
    const entries: TarEntry[] = []
    for await (const entry of readTar(file, (await file.stat()).size)) entries.push(entry)
    return entries
  } finally {
    await file.close()
  }
}

/** First, because a layer's deletions concern the layers below it and not what it brings itself. */
function applyWhiteouts(entries: readonly TarEntry[], tree: ImageTree<StoredNode>): void {
  for (const { path } of entries) {
    const name = path.slice(path.lastIndexOf('/') + 1)
    if (name === OPAQUE) tree.deleteBelow(parentOf(path))
    else if (name.startsWith(WHITEOUT))
      tree.delete([parentOf(path), name.slice(WHITEOUT.length)].filter(Boolean).join('/'))
  }
}

function applyEntry(entry: TarEntry, layer: string, tree: ImageTree<StoredNode>): void {
  const { path, type } = entry
  const isWhiteout = path.slice(path.lastIndexOf('/') + 1).startsWith(WHITEOUT)
  if (path === '' || type === 'other' || isWhiteout) return
  if (type === 'hardlink') {
    const target = tree.get(
      entry.linkname
        .split('/')
        .filter((part) => part !== '' && part !== '.')
        .join('/'),
    )
    if (!target) throw new PlatformError('INVALID_IMAGE', `/${path} is a hard link to what the image does not hold`)
    tree.set(path, target)
    return
  }
  const { mode, linkname, offset, size } = entry
  tree.set(path, { type, mode, target: type === 'symlink' ? linkname : '', layer, offset, size })
}
