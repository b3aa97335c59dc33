// Where the time of building a sandbox goes, and that of destroying it: the stages as sandboxd and init report them.
import { setTimeout as delay } from 'node:timers/promises'
import type { CoreEvent } from '../../native/index.ts'
import { type House, openHouse } from '../../worker/house.ts'
import { Latency } from '../measure.ts'
import type { Context, Section } from '../scenario.ts'

const FULL = 200
const QUICK = 3
const FUNCTION_ID = 1
const SLOT = 0
/** Until what is made ahead for the next one is there. */
const APART_MS = 6

type StageNs = Readonly<Record<string, number>>

export async function stages(context: Context): Promise<readonly Section[]> {
  const { bed, isQuick } = context
  const total = isQuick ? QUICK : FULL
  const events = new Events()
  const hearers = {
    onDone() {},
    onEvent: (event: CoreEvent) => events.hear(event),
    onLost: (error: Error) => events.lose(error),
  }
  // The layer is there: the misses were measured in the same place.
  const house = await openHouse({ ...bed.place(0), slots: 1 }, hearers)
  const build = new Breakdown()
  const teardown = new Breakdown()
  try {
    house.define(FUNCTION_ID, bed.spec({ name: 'once', command: ['/guest', 'once'] }))
    await events.next('defined')
    for (let built = 0; built < total; built++) {
      const buildAt = performance.now()
      house.core.build(SLOT, FUNCTION_ID, false)
      await events.next('ready')
      build.record(stagesOf(house).build, performance.now() - buildAt)
      const retireAt = performance.now()
      house.core.retire(SLOT)
      await events.next('gone')
      teardown.record(stagesOf(house).end, performance.now() - retireAt)
      await delay(APART_MS)
      context.progress('stages of a build', built + 1, total)
    }
  } finally {
    await house.close()
  }
  return [
    build.describe(
      'lease.stages',
      'Where the time of a build goes',
      `${total} sandboxes one after the other, ${APART_MS} ms apart; what is made ahead was there before it was asked for`,
    ),
    teardown.describe('lease.teardown', 'Where the time of a tear-down goes', 'the same, retired unused'),
  ]
}

function stagesOf({ core }: House): { build: StageNs; end: StageNs } {
  return JSON.parse(core.stages(SLOT))
}

/** What no stage has: messages, wake-ups, and whatever is not counted. */
const REST = 'all else, until JavaScript knows'
/** The one stage that nobody waited for. */
const AHEAD = 'ahead'

class Breakdown {
  readonly #stages = new Map<string, Latency>()
  readonly #whole = new Latency()

  /** `ms` is what JavaScript saw. */
  record(stageNs: StageNs, ms: number): void {
    this.#whole.recordMs(ms)
    const stages = Object.entries(stageNs).filter(([, ns]) => ns > 0)
    for (const [name, ns] of stages) this.#add(name, ns / 1e6)
    const meanwhile = stages.filter(([name]) => name !== AHEAD)
    this.#add(REST, ms - meanwhile.reduce((sum, [, ns]) => sum + ns, 0) / 1e6)
  }

  #add(name: string, ms: number): void {
    const latency = this.#stages.get(name) ?? new Latency()
    this.#stages.set(name, latency)
    latency.recordMs(ms)
  }

  describe(id: string, title: string, method: string): Section {
    const rows = [...this.#stages].map(([name, latency]) => ({ name, latency }))
    const inMs = (us: number) => (us / 1000).toFixed(2)
    const { p50Us, p90Us, p99Us } = this.#whole
    return {
      id,
      title,
      method: `${method}, the dearest stage first; one that takes no time is left out`,
      chart: 'stages',
      rows: rows.toSorted((a, b) => b.latency.p50Us - a.latency.p50Us),
      ratios: [],
      notes: [`in all, from JavaScript: p50 ${inMs(p50Us)} ms, p90 ${inMs(p90Us)} ms, p99 ${inMs(p99Us)} ms`],
    }
  }
}

/** What sandboxd says, awaited one kind at a time. */
class Events {
  #waiting: { kind: string; resolve: (event: never) => void; reject: (error: Error) => void } | undefined
  #lost: Error | undefined

  next<K extends CoreEvent['kind']>(kind: K): Promise<Extract<CoreEvent, { kind: K }>> {
    return new Promise((resolve, reject) => {
      if (this.#lost) return reject(this.#lost)
      this.#waiting = { kind, resolve, reject }
    })
  }

  hear(event: CoreEvent): void {
    if (event.kind === 'failed') this.lose(new Error(`no sandbox: ${JSON.stringify(event.failure)}`))
    else if (event.kind === this.#waiting?.kind) this.#waiting.resolve(event as never)
  }

  lose(error: Error): void {
    this.#lost = error
    this.#waiting?.reject(error)
  }
}
