// When a pool has come to rest, so that what is measured next pays for nothing that came before: full again, or empty.
import { setTimeout as delay } from 'node:timers/promises'
import type { FunctionSpec } from '../contract/function.ts'
import type { Pool } from '../worker/pool.ts'
import { type Bed, createPayloads } from './bed.ts'
import { until } from './measure.ts'

/** For the last of the dead: nothing that is measured waits for it. */
const REST_MS = 30

export interface Kept {
  readonly pool: Pool
  /** How many sandboxes are kept ready, over all its functions. */
  readonly ready: number
}

/** Until all that is kept ready is ready, nothing else is alive, and the processors are free. */
export async function untilFull(all: readonly Kept[], restMs = REST_MS): Promise<void> {
  await until(
    () => `the pools to be full again: ${all.map(({ pool }) => JSON.stringify(pool.stats())).join(' ')}`,
    () => all.every(isFull),
  )
  await delay(restMs)
}

function isFull({ pool, ready }: Kept): boolean {
  const { functions, slots } = pool.stats()
  return functions.reduce((sum, one) => sum + one.ready, 0) === ready && slots.total - slots.cold === ready
}

/** Until the last sandbox is gone. */
export async function untilEmpty(pool: Pool): Promise<void> {
  const isEmpty = () => {
    const { slots } = pool.stats()
    return slots.cold === slots.total
  }
  await until(() => `the sandboxes to be gone: ${JSON.stringify(pool.sandboxes())}`, isEmpty)
}

/** A function of which nothing is kept ready. Deploying builds one to find out whether it starts; that one is used up. */
export async function deployEmpty(bed: Bed, pool: Pool, spec: FunctionSpec): Promise<void> {
  await bed.deploy(pool, spec)
  const payload = createPayloads()()
  bed.check(await pool.invoke(spec.name, payload), payload, 'pooled')
  await untilEmpty(pool)
}
