// What the manifest of an OCI image looks like (image-spec v1, manifest.md): it names the config and the layers by
// digest. Written reproducibly and read as hostile input; where the documents are kept is the store's matter.
import { z } from 'zod'
import { PlatformError } from '../contract/errors.ts'

export const DIGEST = /^sha256:[0-9a-f]{64}$/

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json'
const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json'
/** Layers are kept uncompressed: unpacking is one pass, and a layer's blob digest is its diff_id. */
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar'
/** Guess; the overlay's own limit is about 500. */
const LAYERS_MAX = 64

interface Descriptor {
  readonly digest: string
  readonly size: number
}

const descriptor = <T extends string>(mediaType: T) =>
  z.object({ mediaType: z.literal(mediaType), digest: z.string().regex(DIGEST), size: z.int().min(0) })

const manifestSchema = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.literal(MANIFEST_TYPE).optional(),
  config: descriptor(CONFIG_TYPE),
  layers: z.array(descriptor(LAYER_TYPE)).max(LAYERS_MAX),
})
export type ImageManifest = z.infer<typeof manifestSchema>

export function encodeManifest(config: Descriptor, layers: readonly Descriptor[]): string {
  const described = (mediaType: string, { digest, size }: Descriptor) => ({ mediaType, digest, size })
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: described(CONFIG_TYPE, config),
    layers: layers.map((layer) => described(LAYER_TYPE, layer)),
  })
}

export function parseImageManifest(bytes: Uint8Array, digest: string): ImageManifest {
  const manifest = parseDocument(manifestSchema, bytes, `manifest ${digest}`)
  const digests = manifest.layers.map((layer) => layer.digest)
  // The kernel refuses an overlay that names one folder twice (ELOOP), and a layer's folder is named by its digest.
  if (new Set(digests).size !== digests.length) throw invalid(`manifest ${digest}`, 'it names a layer twice')
  return manifest
}

/** Reads one of an image's documents. `what` names it in the error. */
export function parseDocument<T>(schema: z.ZodType<T>, bytes: Uint8Array, what: string): T {
  let json: unknown
  try {
    json = JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch (cause) {
    throw invalid(what, 'it is no JSON', cause)
  }
  const parsed = schema.safeParse(json)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'document'}: ${issue.message}`)
  throw invalid(what, problems.slice(0, 5).join('; '))
}

function invalid(what: string, problem: string, cause?: unknown): PlatformError {
  return new PlatformError('INVALID_IMAGE', `image ${what}: ${problem}`, { cause })
}
