// The functions a newcomer finds deployed: each example's program is made on this machine and put into an image. What
// was made before from the same sources and tools is not made again. An example that lacks a tool is left out, with a
// line that says what to install.
import { createHash } from 'node:crypto'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import { PlatformError } from '../contract/errors.ts'
import { type Image, type Manifest, parseManifest } from '../contract/function.ts'
import { createStagingFolder, ensureFolder, openHome, writeDurably } from '../images/durable.ts'
import type { Store } from '../images/store.ts'
import { MissingTool, RECIPES, type Recipe } from './recipes.ts'

export interface BuiltExample {
  readonly manifest: Manifest
  readonly image: Image
}

export interface BuildExamplesOptions {
  readonly store: Store
  /** Told a line per example, for a person to read. */
  readonly onProgress?: (line: string) => void
}

/** Those that could be built. Needs to read this folder and to run compilers: call it before root is given up. */
export async function buildExamples({
  store,
  onProgress = () => {},
}: BuildExamplesOptions): Promise<readonly BuiltExample[]> {
  const built = await Promise.all(
    RECIPES.map(async (recipe) => {
      try {
        return await buildExample(recipe, store, (line) => onProgress(`${recipe.name}: ${line}`))
      } catch (error) {
        if (!(error instanceof MissingTool || error instanceof PlatformError)) throw error
        onProgress(`example ${recipe.name} is left out: ${error.message}`)
        return undefined
      }
    }),
  )
  return built.filter((example) => example !== undefined)
}

async function buildExample(recipe: Recipe, store: Store, say: (line: string) => void): Promise<BuiltExample> {
  const source = join(import.meta.dirname, recipe.name)
  const manifest = parseManifest(parse(await readFile(join(source, 'mayfly.yaml'), 'utf8')))
  const tool = await recipe.findTool()
  const key = await keyOf([source, join(import.meta.dirname, 'recipes.ts')], tool.identity)
  const home = openHome(store.home)
  const record = join(ensureFolder(home, 'cache/examples'), `${recipe.name}.json`)
  const kept = await readKept(record, key, { store, manifest })
  if (kept) return { manifest, image: kept }
  const folder = await createStagingFolder(home)
  try {
    say('building')
    const image = await recipe.build({ source, folder, tag: manifest.image, tool, store, say })
    await writeDurably(home, record, JSON.stringify({ key, digest: image.digest }))
    return { manifest, image }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The image made last time, when it was made from the same and is still whole. The tag is given to it again. */
async function readKept(
  record: string,
  key: string,
  { store, manifest }: { store: Store; manifest: Manifest },
): Promise<Image | undefined> {
  try {
    const kept = JSON.parse(await readFile(record, 'utf8')) as { key?: unknown; digest?: unknown }
    if (kept.key !== key || typeof kept.digest !== 'string') return undefined
    const image = await store.readImage(kept.digest)
    await store.tag(manifest.image, image.digest)
    return image
  } catch {
    // Whatever is wrong with what was kept, building anew mends it.
    return undefined
  }
}

async function keyOf(paths: readonly string[], identity: string): Promise<string> {
  const hash = createHash('sha256').update(identity)
  for (const path of paths) {
    const entries = await readdir(path, { withFileTypes: true, recursive: true }).catch(() => undefined)
    const files = entries?.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name)) ?? [
      path,
    ]
    for (const file of files.sort()) hash.update(`\0${file}\0`).update(await readFile(file))
  }
  return hash.digest('hex')
}
