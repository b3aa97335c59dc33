// When to destroy what was used and build what is short: at once where that is urgent, else when the calls pause.

/** How long a pause is. Measured by bench lease: done at once, tear-down and refill make the median of a burst that is
 * served from the pool ten times slower, since they take its processors. */
const PAUSE_MS = 2
/** But no longer than until this many wait to be destroyed. Guess: a millisecond's work or two each. */
const UNDESTROYED_MAX = 256

export class Tidying {
  readonly #act: () => void
  readonly #pause = setTimeout(() => this.soon(), PAUSE_MS)
  #undestroyed = 0
  #isDue = false
  #isStopped = false

  constructor(act: () => void) {
    this.#act = act
  }

  /** A sandbox was used. */
  used(isUrgent: boolean): void {
    this.#undestroyed += 1
    if (isUrgent || this.#undestroyed >= UNDESTROYED_MAX) this.soon()
    else if (!this.#isStopped) this.#pause.refresh()
  }

  /** After the replies of this turn of the event loop, and once for all that happened in it. */
  soon(): void {
    if (this.#isDue) return
    this.#isDue = true
    setImmediate(() => {
      this.#isDue = false
      this.#undestroyed = 0
      if (!this.#isStopped) this.#act()
    })
  }

  get isStopped(): boolean {
    return this.#isStopped
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#pause)
  }
}
