// How a manifest becomes a function that answers: image, layers, sandboxes, and last the record, so that what the
// registry lists has started at least once.
import { PlatformError } from '../contract/errors.ts'
import { type FunctionSpec, type Image, parseManifest, resolveFunction } from '../contract/function.ts'
import type { FunctionPool, ImageStore } from './deps.ts'
import { type FunctionRecord, type Registry, versionOf } from './registry.ts'

export interface Deployer {
  deploy(input: unknown): Promise<{ readonly record: FunctionRecord; readonly isNew: boolean }>
  /** Builds the sandboxes of a function deployed in an earlier life. */
  restore(record: FunctionRecord): Promise<void>
  remove(name: string): Promise<void>
}

interface Parts {
  readonly pool: Pick<FunctionPool, 'deploy' | 'remove' | 'unpackLayer'>
  readonly store: ImageStore
  readonly registry: Registry
  /** The path in the image that the command executes; INVALID_IMAGE or INVALID_MANIFEST where it cannot run. */
  readonly checkCommand: (image: Image, spec: FunctionSpec) => Promise<string>
}

export function createDeployer({ pool, store, registry, checkCommand }: Parts): Deployer {
  const inTurn = createTurns()

  async function start(spec: FunctionSpec): Promise<void> {
    for (const layer of spec.layers) await pool.unpackLayer(layer, store.blobPath(layer))
    await pool.deploy(spec)
  }

  return {
    async deploy(input) {
      const manifest = parseManifest(input)
      return inTurn(manifest.name, async () => {
        const image = await store.readImage(manifest.image)
        const named = resolveFunction(manifest, image)
        const spec = withPath(named, await checkCommand(image, named))
        await start(spec)
        const isNew = !registry.has(spec.name)
        const record = {
          name: spec.name,
          version: versionOf(spec),
          deployedAt: new Date().toISOString(),
          manifest,
          spec,
        }
        await registry.put(record)
        return { record, isNew }
      })
    },
    restore: (record) => inTurn(record.name, () => start(record.spec)),
    async remove(name) {
      await inTurn(name, async () => {
        registry.get(name)
        await registry.remove(name)
        await pool.remove(name).catch(ignoreUnknown)
      })
    },
  }
}

/** A bare name is looked for on PATH once, here; what a sandbox executes is a path. */
function withPath(spec: FunctionSpec, path: string): FunctionSpec {
  const [program = '', ...rest] = spec.argv
  return program.includes('/') ? spec : { ...spec, argv: [path, ...rest] }
}

/** A record whose function never started is unknown to the pool, and may still be removed. */
function ignoreUnknown(error: unknown): void {
  if (!(error instanceof PlatformError && error.code === 'FUNCTION_NOT_FOUND')) throw error
}

/** Runs what concerns one name one after the other: of two deploys at once the later wins whole. */
function createTurns() {
  const tails = new Map<string, Promise<unknown>>()
  return async function inTurn<T>(name: string, act: () => Promise<T>): Promise<T> {
    const turn = (tails.get(name) ?? Promise.resolve()).then(act, act)
    tails.set(name, turn)
    try {
      return await turn
    } finally {
      if (tails.get(name) === turn) tails.delete(name)
    }
  }
}
