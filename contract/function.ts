// What a user deploys: the manifest as typed (strict: an unknown key is an error), and the function it means once
// defaults are applied. This file does not know whether the image exists.
import { z } from 'zod'
import { PlatformError } from './errors.ts'
import { DEFAULT_LIMITS, LIMIT_BOUNDS, type Limits } from './limits.ts'

export const FUNCTION_NAME = /^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$/
const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]*$/
/** The kernel's MAX_ARG_STRLEN, and a bound of our own far below its limit on argv and env together. */
const ARG_BYTES_MAX = 128 * 1024
const ARGS_BYTES_MAX = 1024 * 1024

const withoutNul = z.string().refine((text) => !text.includes('\0'), 'must not contain NUL')
const argument = withoutNul.refine((text) => Buffer.byteLength(text) < ARG_BYTES_MAX, 'is longer than 128 KiB')

const limit = (name: keyof Limits) => {
  const [min, max] = LIMIT_BOUNDS[name]
  const number = name === 'cpu' ? z.number() : z.int()
  return number.min(min).max(max).optional()
}

const limitsSchema = z.strictObject({
  cpu: limit('cpu'),
  cpuWeight: limit('cpuWeight'),
  memoryBytes: limit('memoryBytes'),
  pids: limit('pids'),
  wallMs: limit('wallMs'),
  cpuMs: limit('cpuMs'),
  tmpBytes: limit('tmpBytes'),
  tmpFiles: limit('tmpFiles'),
  outputBytes: limit('outputBytes'),
  logBytes: limit('logBytes'),
  openFiles: limit('openFiles'),
})

const poolSchema = z
  .strictObject({ min: z.int().min(0).max(1000).optional(), max: z.int().min(1).max(1000).optional() })
  .refine((pool) => (pool.min ?? 0) <= (pool.max ?? 1000), 'min is above max')

export const manifestSchema = z.strictObject({
  name: z
    .string()
    .regex(FUNCTION_NAME, 'a name is 1 to 64 of a-z, 0-9, - and _, and starts and ends with a letter or digit'),
  /** A tag given at `image build -t`, or `sha256:…`. */
  image: withoutNul.min(1).max(256),
  contract: z.enum(['link', 'stdio']),
  /** Replaces the image's ENTRYPOINT and CMD. */
  command: z.array(argument).min(1).max(1024).optional(),
  env: z.record(z.string().regex(ENV_NAME, 'not a name of an environment variable'), argument).optional(),
  cwd: withoutNul.optional(),
  limits: limitsSchema.optional(),
  pool: poolSchema.optional(),
  reuse: z.enum(['never', 'function']).optional(),
  start: z.enum(['eager', 'lazy']).optional(),
  seccomp: z.enum(['native']).optional(),
})
export type Manifest = z.infer<typeof manifestSchema>

/** A manifest with every default applied and the image's config merged in: what a pool can build sandboxes of. */
export interface FunctionSpec {
  readonly name: string
  /** `sha256:…` of the image's manifest. */
  readonly imageDigest: string
  /** Layers, lowest first, as `sha256:…` of the uncompressed tar. */
  readonly layers: readonly string[]
  readonly contract: 'link' | 'stdio'
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly cwd: string
  /** The id the function sees itself as; never 0. */
  readonly uid: number
  readonly gid: number
  readonly limits: Limits
  readonly pool: { readonly min: number; readonly max: number }
  readonly reuse: 'never' | 'function'
  readonly start: 'eager' | 'lazy'
  readonly seccomp: 'native'
}

/** What an image's config says about running it (OCI image-spec, config.md). */
export interface ImageConfig {
  readonly entrypoint: readonly string[]
  readonly cmd: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly workingDir: string
  /** Numeric `uid` or `uid:gid`, or empty. */
  readonly user: string
  readonly labels: Readonly<Record<string, string>>
}

export interface Image {
  readonly digest: string
  readonly layers: readonly string[]
  readonly config: ImageConfig
}

/** Refuses what is not a manifest: INVALID_MANIFEST, each problem with its path. */
export function parseManifest(input: unknown): Manifest {
  const parsed = manifestSchema.safeParse(input)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'manifest'}: ${issue.message}`)
  throw new PlatformError('INVALID_MANIFEST', problems.join('; '))
}

/** Applies the defaults. A function never runs as root: an image without a user, or with user 0, runs as 1000. */
export function resolveFunction(manifest: Manifest, image: Image): FunctionSpec {
  const argv = manifest.command ?? [...image.config.entrypoint, ...image.config.cmd]
  if (argv.length === 0) {
    throw new PlatformError(
      'INVALID_MANIFEST',
      'command: the image has no ENTRYPOINT and no CMD, so the manifest must name one',
    )
  }
  const env = { ...image.config.env, ...manifest.env }
  refuseLargeArguments(argv, env)
  const [uid, gid] = idsOf(image.config.user)
  return {
    name: manifest.name,
    imageDigest: image.digest,
    layers: image.layers,
    contract: manifest.contract,
    argv,
    env,
    cwd: resolveCwd(manifest.cwd ?? (image.config.workingDir || '/')),
    uid,
    gid,
    limits: { ...DEFAULT_LIMITS, ...definedOnly(manifest.limits ?? {}) },
    pool: { min: manifest.pool?.min ?? Math.min(4, manifest.pool?.max ?? 4), max: manifest.pool?.max ?? 32 },
    reuse: manifest.reuse ?? 'never',
    start: manifest.start ?? 'eager',
    seccomp: manifest.seccomp ?? 'native',
  }
}

/** CVE-2024-21626 came in by the working directory: an absolute, normal path outside /proc and /dev, and nothing else. */
function resolveCwd(cwd: string): string {
  const parts = cwd.split('/').slice(1)
  const isNormal =
    cwd === '/' || (cwd.startsWith('/') && parts.every((part) => part !== '' && part !== '.' && part !== '..'))
  if (!isNormal || cwd.length > 4000)
    throw new PlatformError('INVALID_MANIFEST', `cwd: ${JSON.stringify(cwd.slice(0, 80))} is no absolute, normal path`)
  if (['proc', 'dev', 'sys'].includes(parts[0] ?? ''))
    throw new PlatformError('INVALID_MANIFEST', `cwd: /${parts[0]} is the kernel's, not the image's`)
  return cwd
}

function refuseLargeArguments(argv: readonly string[], env: Readonly<Record<string, string>>): void {
  let total = 0
  for (const text of [...argv, ...Object.entries(env).map(([name, value]) => `${name}=${value}`)]) {
    const bytes = Buffer.byteLength(text) + 1
    if (bytes > ARG_BYTES_MAX)
      throw new PlatformError(
        'INVALID_MANIFEST',
        `command or env: an entry of ${bytes} bytes is over the kernel's 128 KiB`,
      )
    total += bytes
  }
  if (total > ARGS_BYTES_MAX)
    throw new PlatformError('INVALID_MANIFEST', `command and env take ${total} bytes together; the most is 1 MiB`)
}

function idsOf(user: string): [uid: number, gid: number] {
  const DEFAULT_ID = 1000
  const [uid, gid] = user.split(':').map(Number)
  return [uid || DEFAULT_ID, gid || uid || DEFAULT_ID]
}

function definedOnly<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as never
}
