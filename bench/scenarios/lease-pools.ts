// Contenders that are a function of a pool of ours: of the whole sandbox, or of one without its layers. All are the same
// code, so that a ratio of two of them is what those layers cost on this path and nothing else.
import type { FunctionSpec, Manifest } from '../../contract/function.ts'
import type { Start } from '../../contract/invocation.ts'
import type { Pool } from '../../worker/pool.ts'
import { type Bed, closePools, type Program } from '../bed.ts'
import { until } from '../measure.ts'
import { type About, Contender } from './lease-contender.ts'

/** Layers without which a child is a plain one; those not named mean nothing where there is no mount namespace. */
const LAYERS = [
  ...['cgroup', 'pid_ns', 'mount_ns', 'net_ns', 'ipc_ns', 'uts_ns', 'cgroup_ns', 'time_ns', 'user_ns', 'nested_ns'],
  ...['groups', 'caps', 'no_new_privs', 'dumpable', 'rlimits', 'seccomp'],
]
/** What is on in a pool: everything, the groups that limit and nothing else, or nothing. */
const ABLATED = {
  all: [],
  groups: LAYERS.filter((layer) => layer !== 'cgroup'),
  nothing: LAYERS,
} as const
const NUMBERS = { all: 0, groups: 1, nothing: 2 } as const

export interface Plan extends About {
  readonly layers: keyof typeof ABLATED
  readonly program: Program
  readonly manifest: Omit<Manifest, 'image' | 'name' | 'command'> & { readonly pool: { min: number; max: number } }
  /** How each call is to find its sandbox; `fresh` where it does not matter whether it was ready or is built. */
  readonly start: Start | 'fresh'
}

export interface OpenPools {
  /** One per plan, in their order. */
  readonly contenders: readonly PooledContender[]
  close(): Promise<void>
}

/** Plans with the same layers share a pool. */
export async function openPools(bed: Bed, plans: readonly Plan[]): Promise<OpenPools> {
  const pools = new Map<Plan['layers'], Pool>()
  const close = () => closePools(...pools.values())
  try {
    for (const layers of new Set(plans.map((plan) => plan.layers))) {
      const slots = plans.reduce((sum, plan) => sum + (plan.layers === layers ? plan.manifest.pool.max : 0), 0)
      pools.set(layers, await bed.openPool(NUMBERS[layers], { slots, ablate: ABLATED[layers] }))
    }
    const contenders: PooledContender[] = []
    for (const [index, plan] of plans.entries()) {
      const pool = pools.get(plan.layers) as Pool
      const spec = specOf(bed, plan, `${plan.program}-${index}`)
      await bed.deploy(pool, spec)
      contenders.push(new PooledContender(bed, pool, spec, plan))
    }
    return { contenders, close }
  } catch (error) {
    await close()
    throw error
  }
}

function specOf(bed: Bed, { program, manifest, layers }: Plan, name: string): FunctionSpec {
  const spec = bed.spec({ ...manifest, name, command: [`/${program}`] })
  return layers === 'all' ? spec : { ...spec, argv: [bed.pathWithoutRoot(program)] }
}

export class PooledContender extends Contender {
  readonly #bed: Bed
  readonly #pool: Pool
  readonly #spec: FunctionSpec
  readonly #start: Plan['start']

  constructor(bed: Bed, pool: Pool, spec: FunctionSpec, plan: Plan) {
    super(plan)
    this.#bed = bed
    this.#pool = pool
    this.#spec = spec
    this.#start = plan.start
  }

  async call(payload: Buffer): Promise<number> {
    const askedAt = performance.now()
    const invocation = await this.#pool.invoke(this.#spec.name, payload)
    const ms = performance.now() - askedAt
    // What will be used again is new once.
    const isFree = this.#start === 'fresh' || (this.isReused && this.calls === 0)
    this.#bed.check(invocation, payload, isFree ? invocation.start : (this.#start as Start))
    return ms
  }

  get isReused(): boolean {
    return this.#start === 'reused'
  }

  /** Calls that found none ready. */
  get misses(): number {
    return this.#pool.stats().functions.find(({ name }) => name === this.#spec.name)?.cold ?? 0
  }

  /** Until its pool is full again and the last dead sandbox is gone. */
  async rest(): Promise<void> {
    await until(
      () => `the pool to be full again: ${JSON.stringify(this.#pool.stats())}`,
      () => {
        const { functions, slots } = this.#pool.stats()
        const ready = functions.reduce((sum, one) => sum + one.ready, 0)
        const own = functions.find(({ name }) => name === this.#spec.name)
        return (own?.ready ?? 0) >= this.#spec.pool.min && slots.total - slots.cold === ready
      },
    )
  }
}
