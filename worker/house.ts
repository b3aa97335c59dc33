// sandboxd and what belongs to it, as the pool sees them: started, spoken to, and let go.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { readConfig } from '../contract/config.ts'
import { PlatformError } from '../contract/errors.ts'
import type { FunctionSpec } from '../contract/function.ts'
import { type Core, type CoreEvent, clean, compileProfile, type Evidence, launch } from '../native/index.ts'
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
  readonly onDone: (slot: number, evidence: Evidence) => void
  readonly onEvent: (event: CoreEvent) => void
  readonly onLost: (error: PlatformError) => void
}

const PROFILES = join(import.meta.dirname, '../images/profiles')

export async function openHouse(options: HouseOptions, hearers: Hearers): Promise<House> {
  const config = readConfig()
  const { home = config.home, slots = config.slots, uidBase = config.uidBase, cgroup = config.cgroup } = options
  const { allowDegraded = config.allowDegraded, ablate = [], onLog = () => {} } = options
  const filters = { native: compileProfile(readFileSync(join(PROFILES, 'native.json'), 'utf8')) }
  const instance = randomBytes(4).toString('hex')
  const unpacking = new Map<number, { resolve: () => void; reject: (error: PlatformError) => void }>()
  const hello = Promise.withResolvers<Extract<CoreEvent, { kind: 'hello' }>>()
  const closed = Promise.withResolvers<PlatformError | undefined>()

  const lose = (why: string) => {
    const error = new PlatformError('SANDBOXD_LOST', `${why}; this process must start again`)
    hello.reject(error)
    for (const { reject } of unpacking.values()) reject(error)
    closed.resolve(error)
    hearers.onLost(error)
  }
  const onEvent = (event: CoreEvent) => {
    if (event.kind === 'hello') hello.resolve(event)
    else if (event.kind === 'lost') lose(event.why)
    else if (event.kind === 'unpacked') {
      const { token, errno, message } = event
      const waiting = unpacking.get(token)
      unpacking.delete(token)
      if (errno === 0) waiting?.resolve()
      else waiting?.reject(new PlatformError('INVALID_IMAGE', `a layer was refused: ${message}`))
    } else hearers.onEvent(event)
  }
  const { core, launched } = launch({
    home,
    instance,
    slots,
    uidBase,
    cgroup,
    allowDegraded,
    ablationAllowed: ablate.length > 0,
    onDone: hearers.onDone,
    onEvent,
    onLine: (line) => onLog({ level: 'warn', msg: line }),
  })
  // The launcher's refusal says more than the closed socket that follows it.
  hello.promise.catch(() => {})
  try {
    await launched
    const { cgroupMode, copiesWritable } = await hello.promise
    const uid = process.geteuid?.() === 0 ? uidBase : (process.geteuid?.() ?? 0)
    const report = { instance, slots, cgroupMode, copiesWritable, uid }
    let nextToken = 1
    return {
      core,
      home,
      report,
      cpus: availableParallelism(),
      closed: closed.promise,
      log: onLog,
      define: (id, spec) => core.define(id, definitionOf(spec, ablate), filters[spec.seccomp]),
      unpack: (digest, tarPath) =>
        new Promise((resolve, reject) => {
          const token = nextToken++
          unpacking.set(token, { resolve, reject })
          core.unpack(token, digest, tarPath)
        }),
      async close() {
        core.close()
        closed.resolve(undefined)
        // Where this process may not (it gave up root), the next start's janitor does the same.
        await clean(home, uidBase).catch(() => {})
      },
    }
  } catch (error) {
    core.close()
    throw error
  }
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
