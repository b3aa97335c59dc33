// Stops building sandboxes of a function whose program cannot be started, so that it costs its own callers an error
// and nobody else a slot (row R32).

/** Failures in a row before it opens. Guess: two can be a busy host. */
const FAILURES_MAX = 3
const PAUSE_MS_MIN = 1_000
const PAUSE_MS_MAX = 60_000

export class Breaker {
  #failures = 0
  #openUntil = 0
  #reason: string | undefined

  /** Why nothing is built now; undefined when it may be. After a pause one build is tried. */
  get reason(): string | undefined {
    return this.#openUntil > performance.now() ? this.#reason : undefined
  }

  /** How long until a build may be tried again. */
  get pauseMs(): number {
    return Math.max(0, this.#openUntil - performance.now())
  }

  /** After a first failure one build at a time is enough to know. */
  get isDoubtful(): boolean {
    return this.#failures > 0
  }

  succeed(): void {
    this.#failures = 0
    this.#openUntil = 0
    this.#reason = undefined
  }

  fail(reason: string): void {
    this.#failures += 1
    this.#reason = reason
    if (this.#failures < FAILURES_MAX) return
    const pause = Math.min(PAUSE_MS_MIN * 2 ** (this.#failures - FAILURES_MAX), PAUSE_MS_MAX)
    this.#openUntil = performance.now() + pause
  }
}
