// How a layer is made: entries are placed into an image's tree, and leave it as one reproducible tar (sorted, owner
// 0:0, one time for all, no setuid bits). Contents are streamed from where they lie; nothing large is held.
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { PlatformError } from '../contract/errors.ts'
import type { Store } from './store.ts'
import { BLOCK, encodeHeader, paddingAfter } from './tar.ts'
import { ImageTree, parentOf, type TreeNode } from './tree.ts'

const CHUNK_BYTES = 256 * 1024
/** Permissions and the sticky bit. A function has no_new_privs: set-id bits could only mislead. */
const MODE_BITS = 0o1777

/** What lies at a path of the image while it is built. */
export interface LayerNode extends TreeNode {
  readonly size: number
  /** A file's content: bytes, or the path of a file of the host. */
  readonly source: Uint8Array | string
}

export function fileNode(source: Uint8Array | string, size: number, mode: number): LayerNode {
  return { type: 'file', mode: mode & MODE_BITS, target: '', size, source }
}

export function folderNode(mode: number): LayerNode {
  return { type: 'directory', mode: mode & MODE_BITS, target: '', size: 0, source: '' }
}

export function linkNode(target: string): LayerNode {
  return { type: 'symlink', mode: 0o777, target, size: 0, source: '' }
}

/** One layer in the making, over the layers below it. Paths are the image's; links in them lead where they would inside. */
export class LayerDraft {
  readonly #tree: ImageTree<LayerNode>
  readonly #entries = new Map<string, LayerNode>()

  constructor(tree: ImageTree<LayerNode> = new ImageTree()) {
    this.#tree = tree
  }

  get isEmpty(): boolean {
    return this.#entries.size === 0
  }

  /** Places a file or link; folders on the way are made. A link at the very end is replaced, not followed. */
  place(path: string, node: LayerNode): void {
    refuseWhiteout(path)
    const resolved = this.#tree.resolve(path, 'keep')
    if (resolved.obstacle !== undefined) throw blocked(path, resolved.obstacle)
    if (resolved.node?.type === 'directory')
      throw new PlatformError('INVALID_IMAGE', `/${resolved.path} is a folder; no file can take its place`)
    this.#ensureParents(resolved.path)
    this.#set(resolved.path, node)
  }

  /** Makes sure a folder is there. One that is there already keeps its mode. */
  ensureFolder(path: string, mode = 0o755): void {
    refuseWhiteout(path)
    const resolved = this.#tree.resolve(path)
    if (resolved.obstacle !== undefined) throw blocked(path, resolved.obstacle)
    if (resolved.node && resolved.node.type !== 'directory') throw blocked(path, resolved.path)
    if (resolved.path === '') return
    this.#ensureParents(resolved.path)
    this.#set(resolved.path, this.#tree.get(resolved.path) ?? folderNode(mode))
  }

  /** Writes the layer into the store and returns its digest, which is its diff_id too. */
  async write(store: Store, mtimeSeconds: number): Promise<string> {
    return await store.putBlob(layerTar(this.#entries, mtimeSeconds))
  }

  /** A layer names every folder it reaches through, with the mode it has: merged, the topmost layer's mode counts. */
  #ensureParents(path: string): void {
    const parent = parentOf(path)
    if (parent === '') return
    this.#ensureParents(parent)
    this.#set(parent, this.#tree.get(parent) ?? folderNode(0o755))
  }

  #set(path: string, node: LayerNode): void {
    this.#tree.set(path, node)
    this.#entries.set(path, node)
  }
}

async function* layerTar(entries: ReadonlyMap<string, LayerNode>, mtimeSeconds: number): AsyncGenerator<Uint8Array> {
  // By bytes, not by locale: the order must be the same everywhere. A folder sorts before what it holds.
  const sorted = [...entries].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  for (const [path, node] of sorted) {
    yield encodeHeader({ path, type: node.type, mode: node.mode, size: node.size, linkname: node.target, mtimeSeconds })
    if (node.type !== 'file') continue
    if (typeof node.source === 'string') yield* readSource(node.source, node.size)
    else yield node.source
    yield Buffer.alloc(paddingAfter(node.size))
  }
  yield Buffer.alloc(2 * BLOCK)
}

async function* readSource(path: string, size: number): AsyncGenerator<Uint8Array> {
  // Sources were looked at before: what has become a link or a pipe since is not followed and not waited for.
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    let read = 0
    while (read < size) {
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size - read))
      const { bytesRead } = await file.read(buffer, 0, buffer.length, read)
      if (bytesRead === 0) break
      read += bytesRead
      yield buffer.subarray(0, bytesRead)
    }
    const now = await file.stat()
    if (read !== size || now.size !== size || !now.isFile()) {
      throw new PlatformError('INVALID_IMAGE', `${path} changed while it was copied; build again`)
    }
  } finally {
    await file.close()
  }
}

/** In a layer such a name deletes what lies below it (image-spec, layer.md). */
function refuseWhiteout(path: string): void {
  if (!path.split('/').some((part) => part.startsWith('.wh.'))) return
  throw new PlatformError('INVALID_IMAGE', `${path}: a name that begins with .wh. means a deletion in an image`)
}

function blocked(path: string, obstacle: string): PlatformError {
  return new PlatformError('INVALID_IMAGE', `${path} cannot be made: /${obstacle} is no folder`)
}
