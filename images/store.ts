// Which images this machine has: content-addressed blobs (`blobs/sha256/<hex>`) and references to them (`refs/`).
// A reference is one file, so that two processes tagging at once cannot lose each other's tag. The store knows
// nothing of functions: whether an image is in use is for its caller to know.
import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { PlatformError } from '../contract/errors.ts'
import type { Image, ImageConfig } from '../contract/function.ts'
import { ensureFolder, type Home, openHome, syncFolder, writeDurably } from './durable.ts'
import { encodeConfig, parseConfig } from './image-config.ts'
import { DIGEST, encodeManifest, type ImageManifest, parseImageManifest } from './manifest.ts'

/** Manifests and configs are kilobytes; what is larger is hostile. Copied from containerd's limit for manifests. */
const DOCUMENT_BYTES_MAX = 8 * 1024 * 1024
/** A blob no manifest names yet may belong to a build that is under way in another process. Guess: none takes this long. */
const ORPHAN_MS_MIN = 60 * 60 * 1000
const TAG =
  /^(?=.{1,128}$)[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*:[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$/

export interface StoredImage {
  readonly digest: string
  readonly tags: readonly string[]
  /** Sum of its layers; layers may be shared. */
  readonly layerBytes: number
}

export interface Store {
  readonly home: string
  /** Keeps the bytes and returns their digest. A stream is never held in memory. */
  putBlob(source: Uint8Array | string | AsyncIterable<Uint8Array>): Promise<string>
  /** Makes an image of layers that are in the store already, lowest first. */
  putImage(image: { config: ImageConfig; layers: readonly string[]; createdSeconds?: number }): Promise<Image>
  /** `ref` is a tag (`echo` means `echo:latest`) or `sha256:…`. Layers are checked for size; `verifyBlob` reads them. */
  readImage(ref: string): Promise<Image>
  tag(name: string, digest: string): Promise<void>
  list(): Promise<readonly StoredImage[]>
  /** Takes a tag away, or an image with all its tags. An image goes with its last tag, and its blobs with the last image. */
  remove(ref: string): Promise<void>
  blobPath(digest: string): string
  /** INVALID_IMAGE unless the blob's bytes are those its digest names. */
  verifyBlob(digest: string): Promise<void>
}

/** Creates the folders where they are missing and removes what crashed writers left. */
export function openStore(home: string): Store {
  return new FolderStore(openHome(home))
}

class FolderStore implements Store {
  readonly #home: Home
  readonly #blobs: string
  readonly #refs: string

  constructor(home: Home) {
    this.#home = home
    this.#blobs = ensureFolder(home, 'blobs/sha256')
    this.#refs = ensureFolder(home, 'refs')
  }

  get home(): string {
    return this.#home.path
  }

  async putBlob(source: Uint8Array | string | AsyncIterable<Uint8Array>): Promise<string> {
    const hash = createHash('sha256')
    async function* hashed(): AsyncGenerator<Uint8Array> {
      const chunks = typeof source === 'string' || source instanceof Uint8Array ? [Buffer.from(source)] : source
      for await (const chunk of chunks) {
        hash.update(chunk)
        yield chunk
      }
    }
    let digest = ''
    const target = () => {
      digest = `sha256:${hash.digest('hex')}`
      return this.blobPath(digest)
    }
    // Also over a blob that is there: should that one be damaged, this mends it.
    await writeDurably(this.#home, target, hashed())
    return digest
  }

  async putImage(image: { config: ImageConfig; layers: readonly string[]; createdSeconds?: number }): Promise<Image> {
    const describe = async (digest: string) => ({ digest, size: (await stat(this.blobPath(digest))).size })
    const config = await this.putBlob(encodeConfig(image.config, image.layers, image.createdSeconds))
    const layers = await Promise.all(image.layers.map(describe))
    const digest = await this.putBlob(encodeManifest(await describe(config), layers))
    await this.#writeRef(digest, digest)
    // Read back: a `remove` in another process may have taken a layer that was about to be named again.
    return await this.readImage(digest)
  }

  async readImage(ref: string): Promise<Image> {
    const digest = await this.#resolve(ref)
    const manifest = await this.#readManifest(digest)
    const config = parseConfig(await this.#readDocument(manifest.config.digest), manifest)
    for (const layer of manifest.layers) {
      const found = await stat(this.blobPath(layer.digest)).catch(() => undefined)
      if (found?.size === layer.size) continue
      const problem = found ? `has ${found.size} bytes instead of ${layer.size}` : 'is missing'
      throw new PlatformError('INVALID_IMAGE', `image ${ref}: layer ${layer.digest} ${problem}; build the image again`)
    }
    return { digest, layers: manifest.layers.map((layer) => layer.digest), config }
  }

  async tag(name: string, digest: string): Promise<void> {
    await this.#writeRef(parseTag(name), await this.#resolve(digest))
  }

  async list(): Promise<readonly StoredImage[]> {
    const refs = await this.#readRefs()
    const images = [...refs].filter(([ref]) => DIGEST.test(ref)).map(([ref]) => ref)
    return await Promise.all(
      images.map(async (digest) => {
        const manifest = await this.#readManifest(digest)
        const tags = [...refs].filter(([ref, to]) => to === digest && ref !== digest).map(([ref]) => ref)
        return { digest, tags, layerBytes: manifest.layers.reduce((sum, layer) => sum + layer.size, 0) }
      }),
    )
  }

  async remove(ref: string): Promise<void> {
    const digest = await this.#resolve(ref)
    const refs = await this.#readRefs()
    const named = [...refs].filter(([, to]) => to === digest).map(([name]) => name)
    const name = DIGEST.test(ref) ? ref : parseTag(ref)
    const isLast = name === digest || named.every((other) => other === name || other === digest)
    for (const gone of isLast ? named : [name]) await rm(this.#refPath(gone), { force: true })
    await syncFolder(this.#refs)
    if (isLast) await this.#collect(digest)
  }

  blobPath(digest: string): string {
    if (!DIGEST.test(digest)) throw new PlatformError('INVALID_IMAGE', `${quote(digest)} is no sha256 digest`)
    return join(this.#blobs, digest.slice('sha256:'.length))
  }

  async verifyBlob(digest: string): Promise<void> {
    const hash = createHash('sha256')
    const file = await this.#openBlob(digest)
    for await (const chunk of file.createReadStream({ highWaterMark: 1024 * 1024 })) hash.update(chunk)
    refuseOtherDigest(digest, hash.digest('hex'))
  }

  /** Drops what no image names any more. `removed` is the image that just went: what it alone named goes at once. */
  async #collect(removed: string): Promise<void> {
    const past = await this.#readManifest(removed).catch(() => undefined)
    const own = new Set(past ? namesOf(removed, past) : [removed])
    const live = new Set<string>()
    for (const ref of (await this.#readRefs()).values()) {
      const manifest = await this.#readManifest(ref).catch(() => undefined)
      // What a damaged manifest names cannot be known: nothing is dropped until that image is removed.
      if (!manifest) return
      for (const digest of namesOf(ref, manifest)) live.add(digest)
    }
    for (const name of await readdir(this.#blobs)) {
      const digest = `sha256:${name}`
      if (live.has(digest)) continue
      const path = join(this.#blobs, name)
      const { mtimeMs } = await stat(path)
      if (own.has(digest) || Date.now() - mtimeMs > ORPHAN_MS_MIN) await rm(path, { force: true })
    }
  }

  async #resolve(ref: string): Promise<string> {
    const path = this.#refPath(DIGEST.test(ref) ? ref : parseTag(ref))
    const digest = await readFile(path, { encoding: 'utf8', flag: constants.O_RDONLY | constants.O_NOFOLLOW }).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error
        throw new PlatformError('IMAGE_NOT_FOUND', `no image ${quote(ref)}; \`mayfly image ls\` shows those there are`)
      },
    )
    if (!DIGEST.test(digest))
      throw new PlatformError('INVALID_IMAGE', `the reference ${quote(ref)} is damaged; tag it again`)
    return digest
  }

  async #writeRef(ref: string, digest: string): Promise<void> {
    await writeDurably(this.#home, this.#refPath(ref), digest)
  }

  async #readRefs(): Promise<ReadonlyMap<string, string>> {
    const names = (await readdir(this.#refs)).sort().map(decodeURIComponent)
    return new Map(await Promise.all(names.map(async (ref) => [ref, await this.#resolve(ref)] as const)))
  }

  async #readManifest(digest: string): Promise<ImageManifest> {
    return parseImageManifest(await this.#readDocument(digest), digest)
  }

  async #readDocument(digest: string): Promise<Uint8Array> {
    const file = await this.#openBlob(digest)
    try {
      const { size } = await file.stat()
      if (size > DOCUMENT_BYTES_MAX)
        throw new PlatformError('INVALID_IMAGE', `image document ${digest} has ${size} bytes`)
      const bytes = await file.readFile()
      refuseOtherDigest(digest, createHash('sha256').update(bytes).digest('hex'))
      return bytes
    } finally {
      await file.close()
    }
  }

  async #openBlob(digest: string): Promise<FileHandle> {
    return await open(this.blobPath(digest), constants.O_RDONLY | constants.O_NOFOLLOW).catch((cause) => {
      throw new PlatformError('INVALID_IMAGE', `image blob ${digest} cannot be read; build the image again`, { cause })
    })
  }

  /** A reference's characters are checked before this; escaped, it is one component of a path and never `..`. */
  #refPath(ref: string): string {
    return join(this.#refs, encodeURIComponent(ref))
  }
}

/** Docker's habit: a name without a tag means `latest`. */
function parseTag(name: string): string {
  const full = name.lastIndexOf(':') > name.lastIndexOf('/') ? name : `${name}:latest`
  if (TAG.test(full) && !full.startsWith('sha256:')) return full
  throw new PlatformError(
    'INVALID_IMAGE',
    `${quote(name)} is no image name: small letters, digits and . _ - /, then perhaps :tag`,
  )
}

function namesOf(digest: string, manifest: ImageManifest): string[] {
  return [digest, manifest.config.digest, ...manifest.layers.map((layer) => layer.digest)]
}

function refuseOtherDigest(digest: string, hex: string): void {
  if (digest === `sha256:${hex}`) return
  throw new PlatformError(
    'INVALID_IMAGE',
    `image blob ${digest} is damaged (its bytes are sha256:${hex}); build the image again`,
  )
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 140))
}
