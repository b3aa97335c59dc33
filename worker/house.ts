// sandboxd and what belongs to it, as the pool sees them: started, spoken to, and let go.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { readConfig } from '../contract/config.ts'
import { PlatformError } from '../contract/errors.ts'
import type { FunctionSpec } from '../contract/function.ts'
import { type Core, type CoreEvent, clean, compileProfile, type Evidence, launch, type Next } from '../native/index.ts'
import { nativeLimits } from './limits.ts'

export interface HouseOptions {
  /** The folder of all state; MAYFLY_HOME's default. One pool at a time holds it. */
  readonly home?: string
  /** The most sandboxes at once, those in the making and those being destroyed included. */
  readonly slots?: number
  /** Serve although the host cannot enforce every limit. */
  readonly allowDegraded?: boolean
  /** Started as root: the first of the 65536 ids that sandboxes live under. */
  readonly uidBase?: number
  /** `auto`, `none`, or the cgroup below which to work. */
  readonly cgroup?: string
  readonly onLog?: (line: object) => void
  /** For tests: layers that are off, to show what they stop. Nothing but this option asks for it. */
  readonly ablate?: readonly string[]
}

export interface HouseReport {
  readonly instance: string
  readonly slots: number
  readonly cgroupMode: string
  /** Below Linux 6.6: world-writable folders of images are copied instead of stacked. */
  readonly copiesWritable: boolean
  /** As which user of the host sandboxd runs. */
  readonly uid: number
}

export interface House {
  readonly core: Core
  readonly home: string
  readonly cpus: number
  readonly report: HouseReport
  readonly closed: Promise<PlatformError | undefined>
  define(id: number, spec: FunctionSpec): void
  unpack(digest: string, tarPath: string): Promise<void>
  log(line: object): void
  close(): Promise<void>
}

interface Hearers {
  readonly onDone: (slot: number, evidence: Evidence, next: Next) => void
  readonly onEvent: (event: CoreEvent) => void
  readonly onLost: (error: PlatformError) => void
}

const PROFILES = join(import.meta.dirname, '../images/profiles')

export async function openHouse(options: HouseOptions, hearers: Hearers): Promise<House> {
  const settings = { ...readConfig(), ...definedOnly(options) }
  const { home, slots, uidBase, ablate = [], onLog = () => {} } = settings
  const filters = { native: compileProfile(readFileSync(join(PROFILES, 'native.json'), 'utf8')) }
  const instance = randomBytes(4).toString('hex')
  const line = new Line(hearers)
  const { core, launched } = launch({
    ...settings,
    instance,
    ablationAllowed: ablate.length > 0,
    onDone: hearers.onDone,
    onEvent: (event) => line.hear(event),
    onLine: (msg) => onLog({ level: 'warn', msg }),
  })
  try {
    await launched
    const { cgroupMode, copiesWritable } = await line.hello
    const ownUid = process.geteuid?.() ?? 0
    return {
      core,
      home,
      report: { instance, slots, cgroupMode, copiesWritable, uid: ownUid === 0 ? uidBase : ownUid },
      cpus: availableParallelism(),
      closed: line.closed,
      log: onLog,
      define: (id, spec) => core.define(id, definitionOf(spec, ablate), filters[spec.seccomp]),
      unpack: (digest, tarPath) => line.unpacked((token) => core.unpack(token, digest, tarPath)),
      async close() {
        core.close()
        line.close()
        // Where this process may not (it gave up root), the next start's janitor does the same.
        await clean(home, uidBase).catch(() => {})
      },
    }
  } catch (error) {
    core.close()
    throw error
  }
}

/** What sandboxd says about itself and not about a slot. */
class Line {
  readonly #hearers: Hearers
  readonly #hello = Promise.withResolvers<Extract<CoreEvent, { kind: 'hello' }>>()
  readonly #closed = Promise.withResolvers<PlatformError | undefined>()
  readonly #unpacking = new Map<number, PromiseWithResolvers<void>>()
  #nextToken = 1

  constructor(hearers: Hearers) {
    this.#hearers = hearers
    // The launcher's refusal says more than the closed socket that follows it, and is heard first.
    this.#hello.promise.catch(() => {})
  }

  get hello() {
    return this.#hello.promise
  }

  get closed() {
    return this.#closed.promise
  }

  hear(event: CoreEvent): void {
    switch (event.kind) {
      case 'hello':
        return this.#hello.resolve(event)
      case 'lost':
        return this.#lose(new PlatformError('SANDBOXD_LOST', `${event.why}; this process must start again`))
      case 'unpacked': {
        const waiting = this.#unpacking.get(event.token)
        this.#unpacking.delete(event.token)
        if (event.errno === 0) waiting?.resolve()
        else waiting?.reject(new PlatformError('INVALID_IMAGE', `a layer was refused: ${event.message}`))
        return
      }
      default:
        this.#hearers.onEvent(event)
    }
  }

  unpacked(ask: (token: number) => void): Promise<void> {
    const token = this.#nextToken++
    const waiting = Promise.withResolvers<void>()
    this.#unpacking.set(token, waiting)
    ask(token)
    return waiting.promise
  }

  close(): void {
    this.#closed.resolve(undefined)
  }

  #lose(error: PlatformError): void {
    this.#hello.reject(error)
    for (const { reject } of this.#unpacking.values()) reject(error)
    this.#closed.resolve(error)
    this.#hearers.onLost(error)
  }
}

function definedOnly(options: HouseOptions): Partial<HouseOptions> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}

function definitionOf(spec: FunctionSpec, ablate: readonly string[]) {
  return {
    contract: spec.contract,
    start: spec.start,
    isReusable: spec.reuse === 'function',
    argv: [...spec.argv],
    env: Object.entries(spec.env).map(([name, value]) => `${name}=${value}`),
    cwd: spec.cwd,
    hostname: spec.name,
    uid: spec.uid,
    gid: spec.gid,
    layers: spec.layers.map((layer) => layer.replace(/^sha256:/, '')),
    tmpBytes: spec.limits.tmpBytes,
    tmpFiles: spec.limits.tmpFiles,
    openFiles: spec.limits.openFiles,
    logBytes: spec.limits.logBytes,
    ablate: [...ablate],
    limits: nativeLimits(spec.limits),
  }
}
