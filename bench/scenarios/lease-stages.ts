// Where the time of building a sandbox goes: the stages as sandboxd and init report them with each one that is ready.
import type { CoreEvent } from '../../native/index.ts'
import { openHouse } from '../../worker/house.ts'
import { Latency } from '../measure.ts'
import type { Context, Section } from '../scenario.ts'

const FULL = 200
const QUICK = 3
const FUNCTION_ID = 1
const SLOT = 0

export async function stages(context: Context): Promise<Section> {
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
  const latencies = new Map<string, Latency>()
  try {
    house.define(FUNCTION_ID, bed.spec({ name: 'once', command: ['/guest', 'once'] }))
    await events.next('defined')
    for (let built = 0; built < total; built++) {
      house.core.build(SLOT, FUNCTION_ID, false)
      const { stageNs } = await events.next('ready')
      house.core.retire(SLOT)
      await events.next('gone')
      record(latencies, stageNs)
      context.progress('stages of a build', built + 1, total)
    }
  } finally {
    await house.close()
  }
  const rows = [...latencies].map(([name, latency]) => ({ name, latency }))
  return {
    id: 'lease.stages',
    title: 'Where the time of a build goes',
    method: `${total} sandboxes one after the other, the dearest stage first; one that takes no time is left out`,
    chart: 'stages',
    rows: rows.toSorted((a, b) => b.latency.summary.p50Us - a.latency.summary.p50Us),
    ratios: [],
    notes: [],
  }
}

function record(latencies: Map<string, Latency>, stageNs: Readonly<Record<string, number>>): void {
  for (const [name, ns] of Object.entries(stageNs)) {
    if (ns === 0) continue
    const latency = latencies.get(name) ?? new Latency()
    latencies.set(name, latency)
    latency.recordMs(ns / 1e6)
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
