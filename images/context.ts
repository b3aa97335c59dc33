// What a build may read: the files of its context folder, minus what .dockerignore excludes. Every source is resolved
// to its real path first, and one that leads out of the folder is refused.
import { lstat, readdir, readFile, readlink, realpath } from 'node:fs/promises'
import { join, posix, relative } from 'node:path'
import { PlatformError } from '../contract/errors.ts'
import { fileNode, folderNode, type LayerNode, linkNode } from './layer.ts'
import { compilePattern, hasWildcard, parseIgnoreRules } from './patterns.ts'

/** One source of a COPY: a file, or a folder with all that is wanted of it, by path relative to it. */
export interface Source {
  /** As written, or as the wildcard found it. */
  readonly name: string
  readonly node: LayerNode
  readonly content: readonly (readonly [path: string, node: LayerNode])[]
}

export class BuildContext {
  readonly #root: string
  readonly #rules: ReturnType<typeof parseIgnoreRules>

  private constructor(root: string, rules: ReturnType<typeof parseIgnoreRules>) {
    this.#root = root
    this.#rules = rules
  }

  static async open(folder: string, dockerfile: string): Promise<BuildContext> {
    const root = await realpath(folder).catch((cause) => {
      throw new PlatformError('INVALID_IMAGE', `the build context ${folder} cannot be read`, { cause })
    })
    // Docker's: rules beside the Dockerfile, for it alone, come before the folder's.
    const rules = (await readIfThere(`${dockerfile}.dockerignore`)) ?? (await readIfThere(join(root, '.dockerignore')))
    return new BuildContext(root, parseIgnoreRules(rules ?? ''))
  }

  /** The sources a COPY's argument names. Problems are given to `refuse`, which knows the line. */
  async find(argument: string, refuse: (problem: string) => never): Promise<readonly Source[]> {
    const clean = posix.normalize(argument.replace(/^\/+/, '') || '.').replace(/\/$/, '')
    if (clean === '..' || clean.startsWith('../')) refuse(`${argument} leads out of the build context`)
    const names = hasWildcard(clean) ? await this.#match(clean) : [clean]
    if (names.length === 0) refuse(`${argument} matches nothing in the build context`)
    const sources: Source[] = []
    for (const name of names) sources.push(await this.#readSource(name, refuse))
    return sources
  }

  /** Paths a pattern matches, sorted. Folders on the way may be links; `#readSource` looks where they lead. */
  async #match(pattern: string): Promise<string[]> {
    let found = ['']
    for (const part of pattern.split('/')) {
      if (!hasWildcard(part)) {
        found = found.map((folder) => posix.join(folder, part))
        continue
      }
      const expression = compilePattern(part)
      const matches = await Promise.all(
        found.map(async (folder) => {
          const names = await readdir(join(this.#root, folder)).catch(() => [])
          return names.filter((name) => expression.test(name)).map((name) => posix.join(folder, name))
        }),
      )
      found = matches.flat()
    }
    return found.filter((name) => !this.#rules.isIgnored(name) || this.#rules.hasExceptions).sort()
  }

  async #readSource(name: string, refuse: (problem: string) => never): Promise<Source> {
    const real = await realpath(join(this.#root, name)).catch((error: NodeJS.ErrnoException) =>
      refuse(
        `${name} cannot be read from the build context: ${error.code === 'ENOENT' ? 'there is no such file' : error.message}`,
      ),
    )
    const inside = relative(this.#root, real)
    if (inside === '..' || inside.startsWith('../')) refuse(`${name} is a link that leads out of the build context`)
    const node = await readNode(real, refuse)
    const isExcluded = [name, inside].some((path) => path !== '.' && path !== '' && this.#rules.isIgnored(path))
    if (isExcluded && !(node.type === 'directory' && this.#rules.hasExceptions))
      refuse(`.dockerignore excludes ${name}`)
    const content = node.type === 'directory' ? await this.#readFolder(inside, refuse) : []
    return { name, node, content: content.map(([path, found]) => [posix.relative(inside, path), found] as const) }
  }

  /** All wanted below a folder, each folder before what it holds. Links in it are kept as they are, not followed. */
  async #readFolder(folder: string, refuse: (problem: string) => never): Promise<[path: string, node: LayerNode][]> {
    const wanted: [string, LayerNode][] = []
    for (const name of (await readdir(join(this.#root, folder))).sort()) {
      const path = posix.join(folder, name)
      // Node reads a byte that is no UTF-8 as U+FFFD, under which there is no file.
      if (name.includes('\uFFFD')) refuse(`the name of ${JSON.stringify(path)} is not UTF-8`)
      const isIgnored = this.#rules.isIgnored(path)
      if (isIgnored && !this.#rules.hasExceptions) continue
      const node = await readNode(join(this.#root, path), refuse)
      const below = node.type === 'directory' ? await this.#readFolder(path, refuse) : []
      if (!isIgnored || below.length > 0) wanted.push([path, node], ...below)
    }
    return wanted
  }
}

/** What lies at a path of the host, as an entry of a layer. */
export async function readNode(path: string, refuse: (problem: string) => never): Promise<LayerNode> {
  const found = await lstat(path)
  if (found.isFile()) return fileNode(path, found.size, found.mode)
  if (found.isDirectory()) return folderNode(found.mode)
  if (found.isSymbolicLink()) return linkNode(await readlink(path))
  return refuse(`${path} is a device, a socket or a pipe, which an image cannot hold`)
}

async function readIfThere(path: string): Promise<string | undefined> {
  return await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
}
