// The composition root of the embedded mode: gateway, pool and store in one process, in the order in which they may be
// opened. It constructs and passes; what happens then is in the parts.
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import type { Config } from '../contract/config.ts'
import type { PlatformError } from '../contract/errors.ts'
import { buildExamples } from '../examples/build.ts'
import { checkCommand } from '../images/deployable.ts'
import { openStore } from '../images/store.ts'
import { openPool } from '../worker/pool.ts'
import { createApp } from './app.ts'
import { createDeployer } from './deploy.ts'
import type { Deps } from './http.ts'
import { createHttpServer, listen } from './listen.ts'
import type { Log } from './log.ts'
import { dropPrivileges, refuseClosedHome } from './privileges.ts'
import { openRegistry } from './registry.ts'

/** How long answers may still be written after the last invocation ended. */
const FLUSH_MS = 1_000

export interface RunningServer {
  readonly url: string
  readonly functions: readonly string[]
  /** Resolves when the pool is gone unasked: this process must end and start anew. */
  readonly lost: Promise<PlatformError>
  /** Ends what runs, at the latest after `drainMs`. */
  drain(): Promise<void>
}

export async function serve(config: Config, log: Log): Promise<RunningServer> {
  refuseClosedHome(config.home, config.uidBase)
  const store = openStore(config.home)
  const registry = openRegistry(config.home, (file, err) => log.error({ file, err }, 'unreadable record left out'))
  const pool = await openPool({ ...config, onLog: (line) => hear(log, line) })
  log.info({ ...pool.host }, 'pool open')
  const deployer = createDeployer({
    pool,
    store,
    registry,
    checkCommand: (image, spec) => checkCommand(image, store, spec),
  })
  let phase: ReturnType<Deps['phase']> = 'starting'
  const app = createApp({ pool, store, registry, deployer, log, phase: () => phase })
  const server = createHttpServer(config, app)
  // What each example was made of is for who looks closely; that one is missing is for all.
  const onProgress = (line: string) => (line.startsWith('example ') ? log.warn(line) : log.debug(line))
  try {
    const url = await listen(server, config)
    log.info({ url }, 'listening')
    // While still root: the folder of the examples may be readable to root alone.
    const examples = registry.list().length === 0 ? await buildExamples({ store, onProgress }) : []
    dropPrivileges(config.home, config.uidBase)
    await Promise.all([
      ...registry.list().map((record) => attempt(log, record.name, deployer.restore(record))),
      ...examples.map(({ manifest }) => attempt(log, manifest.name, deployer.deploy(manifest))),
    ])
    phase = 'ready'
    return { url, functions: [...pool.functions()].sort(), lost: lostOf(pool), drain }
  } catch (error) {
    server.close()
    await pool.close()
    throw error
  }

  async function drain(): Promise<void> {
    phase = 'draining'
    const closed = once(server, 'close')
    server.close()
    await pool.drain(config.drainMs)
    await Promise.race([closed, delay(FLUSH_MS)])
    server.closeAllConnections()
    await pool.close()
  }
}

/** The pool's lines carry their own level and words. */
function hear(log: Log, line: object): void {
  const { level, msg, ...fields } = line as { level?: unknown; msg?: string }
  if (level === 'error' || level === 'warn') log[level](fields, msg)
  else log.info(fields, msg)
}

/** One function that cannot start must not keep the others down. */
async function attempt(log: Log, name: string, deployed: Promise<unknown>): Promise<void> {
  try {
    await deployed
  } catch (err) {
    log.error({ function: name, err }, 'could not be started')
  }
}

async function lostOf(pool: { closed: Promise<PlatformError | undefined> }): Promise<PlatformError> {
  const error = await pool.closed
  // Closed because we said so: nothing is lost, and nobody waits for this any more.
  return error ?? new Promise<never>(() => undefined)
}
