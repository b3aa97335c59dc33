// Gives orders to the load generator, and says what came of them.
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

/** So many calls on each connection, or for so long, one after the other; or so many per second whatever becomes of them. */
export type Load =
  | { readonly kind: 'calls'; readonly calls: number }
  | { readonly kind: 'time'; readonly ms: number }
  | { readonly kind: 'rate'; readonly perSecond: number; readonly ms: number }

export interface Order {
  readonly url: string
  readonly path: string
  readonly connections: number
  readonly payloadBytes: number
  readonly load: Load
}

export interface Told {
  readonly tookMs: number
  /** How long each good answer took, in the order in which they came. */
  readonly ms: Float64Array
  /** X-Mayfly-Start and X-Mayfly-Sandbox of each, empty where there is none. */
  readonly starts: readonly string[]
  readonly sandboxes: readonly string[]
  /** Status and code of each answer that was not good. */
  readonly refusals: readonly string[]
}

export class Generator {
  readonly #child: ChildProcess

  constructor() {
    this.#child = fork(join(import.meta.dirname, 'http-generator.ts'), { serialization: 'advanced' })
  }

  async run(order: Order): Promise<Told> {
    const ended = new AbortController()
    try {
      const gone = once(this.#child, 'exit', { signal: ended.signal }).then(() => {
        throw new Error('the load generator ended')
      })
      const answer = once(this.#child, 'message', { signal: ended.signal })
      this.#child.send(order)
      const [told] = (await Promise.race([answer, gone])) as [Told | { error: string }]
      if ('error' in told) throw new Error(`${order.url}${order.path}: ${told.error}`)
      return told
    } finally {
      ended.abort()
    }
  }

  close(): void {
    // Ended already where a signal went to all of us.
    if (this.#child.connected) this.#child.disconnect()
  }
}
