// The app with a pool and a store of a few lines, passed through the parameter that the composition root uses.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { PlatformError } from '../../../contract/errors.ts'
import type { FunctionSpec, Image } from '../../../contract/function.ts'
import type { Invocation, InvokeOptions } from '../../../contract/invocation.ts'
import type { Outcome } from '../../../contract/outcome.ts'
import { createApp } from '../../../gateway/app.ts'
import { createDeployer } from '../../../gateway/deploy.ts'
import type { Deps } from '../../../gateway/http.ts'
import { createLog } from '../../../gateway/log.ts'
import { openRegistry } from '../../../gateway/registry.ts'

export const IMAGE: Image = {
  digest: `sha256:${'a'.repeat(64)}`,
  layers: [`sha256:${'b'.repeat(64)}`],
  config: { entrypoint: ['/echo'], cmd: [], env: {}, workingDir: '/', user: '', labels: {} },
}
export const MANIFEST = { name: 'echo', image: 'echo', contract: 'link' }
export const USAGE = { wallNs: 1, cpuNs: 2, memoryPeakBytes: 3, throttledCount: 4, pidsDeniedCount: 5, oomKillCount: 6 }

/** Answers what was sent, unless told how the invocation ends. */
export class EchoPool {
  readonly specs = new Map<string, FunctionSpec>()
  readonly calls: InvokeOptions[] = []
  ending: Partial<Outcome> & { status: Outcome['status'] } = { status: 'ok' }

  async deploy(spec: FunctionSpec): Promise<void> {
    if (spec.argv[0] === '/broken') throw new PlatformError('START_FAILED', 'exec: no such file')
    this.specs.set(spec.name, spec)
  }

  async remove(name: string): Promise<void> {
    this.specs.delete(name)
  }

  async unpackLayer(): Promise<void> {}

  async invoke(_name: string, payload: Uint8Array, options: InvokeOptions = {}): Promise<Invocation> {
    this.calls.push(options)
    const outcome = { output: payload, usage: USAGE, logs: new Uint8Array(), logsTruncated: false, ...this.ending }
    const stages = { acquireNs: 1_000, sendNs: 2_000, runNs: 3_000 }
    return { outcome: outcome as Outcome, start: 'pooled', sandbox: 'i-1-1', stages }
  }

  stats() {
    return { functions: [] }
  }

  sandboxes() {
    return [{ id: 'i-1-1' }]
  }

  async inspect(id: string): Promise<object> {
    if (id !== 'i-1-1') throw new PlatformError('SANDBOX_NOT_FOUND', 'gone')
    return { id }
  }
}

const STORE = {
  async readImage(reference: string): Promise<Image> {
    if (reference !== 'echo') throw new PlatformError('IMAGE_NOT_FOUND', `no image ${reference}`)
    return IMAGE
  },
  blobPath: (digest: string) => digest,
  list: () => [],
}

export function temporaryHome(): string {
  const home = mkdtempSync(join(tmpdir(), 'mayfly-test-'))
  onTestFinished(() => rmSync(home, { recursive: true, force: true }))
  return home
}

export function setUp({ home = temporaryHome(), phase = 'ready' as ReturnType<Deps['phase']> } = {}) {
  const pool = new EchoPool()
  const unreadable: string[] = []
  const registry = openRegistry(home, (file) => unreadable.push(file))
  const deployer = createDeployer({
    pool,
    store: STORE,
    registry,
    checkCommand: async (_, spec) => `/bin/${spec.argv[0]}`,
  })
  const log = createLog('silent')
  const app = createApp({ pool, store: STORE, registry, deployer, log, phase: () => phase })
  const ask = async (path: string, init: RequestInit = {}) => app.request(`http://127.0.0.1${path}`, init)
  const deploy = async (manifest: object = MANIFEST) =>
    ask('/v1/functions/echo', {
      method: 'PUT',
      body: JSON.stringify(manifest),
      headers: { 'Content-Type': 'application/json' },
    })
  return { app, ask, deploy, pool, registry, home, unreadable }
}
