// What path leads where in an image: the names of all its layers merged, resolved as the kernel would with the image
// as its root. Holds names, types and modes only; contents stay where they are.

export interface TreeNode {
  readonly type: 'file' | 'directory' | 'symlink'
  readonly mode: number
  /** Of a symbolic link; empty for the others. */
  readonly target: string
}

/** Where a path led: `node` is undefined when nothing is there, `obstacle` is a file on the way to it, or a loop of links. */
interface Resolved<N> {
  /** Without a leading slash; empty for the root. */
  readonly path: string
  readonly node: N | undefined
  readonly obstacle?: string
}

const ROOT: TreeNode = { type: 'directory', mode: 0o755, target: '' }
/** As the kernel's MAXSYMLINKS. */
const SYMLINKS_MAX = 40

export class ImageTree<N extends TreeNode> {
  readonly #nodes = new Map<string, N>()
  readonly #children = new Map<string, Set<string>>()

  get(path: string): N | undefined {
    return this.#nodes.get(path)
  }

  /** Puts a node of a higher layer over what is there: only a directory over a directory keeps what is below. */
  set(path: string, node: N): void {
    const old = this.#nodes.get(path)
    if (old && !(old.type === 'directory' && node.type === 'directory')) this.#delete(path)
    this.#nodes.set(path, node)
    const parent = parentOf(path)
    const siblings = this.#children.get(parent) ?? new Set()
    this.#children.set(parent, siblings.add(path))
  }

  #delete(path: string): void {
    for (const child of [...(this.#children.get(path) ?? [])]) this.#delete(child)
    this.#nodes.delete(path)
    this.#children.get(parentOf(path))?.delete(path)
  }

  /** `last: 'keep'` does not follow a symbolic link at the very end. A loop of links is an obstacle. */
  resolve(path: string, last: 'follow' | 'keep' = 'follow'): Resolved<N | TreeNode> {
    return this.#walk([], components(path), { last, links: 0 })
  }

  #walk(
    from: string[],
    parts: string[],
    { last, links }: { last: 'follow' | 'keep'; links: number },
  ): Resolved<N | TreeNode> {
    const current = [...from]
    for (const [index, part] of parts.entries()) {
      if (part === '..') current.pop()
      else current.push(part)
      const node = this.#nodes.get(current.join('/'))
      const rest = parts.slice(index + 1)
      if (node?.type === 'symlink' && (rest.length > 0 || last === 'follow')) {
        if (links === SYMLINKS_MAX) return obstructedBy(current)
        const folder = node.target.startsWith('/') ? [] : current.slice(0, -1)
        return this.#walk(folder, [...components(node.target), ...rest], { last, links: links + 1 })
      }
      if (node?.type === 'file' && rest.length > 0) return obstructedBy(current)
    }
    const resolved = current.join('/')
    return { path: resolved, node: resolved === '' ? ROOT : this.#nodes.get(resolved) }
  }
}

function obstructedBy(current: readonly string[]): { path: string; node: undefined; obstacle: string } {
  return { path: current.join('/'), node: undefined, obstacle: current.join('/') }
}

export function parentOf(path: string): string {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? '' : path.slice(0, slash)
}

export function components(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.')
}
