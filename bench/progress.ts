// Where a run is and how much is left, for whoever waits: a line that is written over on a terminal, and one now and then
// where nobody watches.
import { readFileSync } from 'node:fs'
import { formatElapsed } from './format.ts'
import { tolerant } from './measure.ts'
import { writeAside } from './result.ts'

/** Rarely enough to stay out of what is measured. */
const TERMINAL_MS = 200
const LOG_MS = 5000

/** How long each scenario took on this machine, by its name. */
type Durations = Record<string, number>

export class Progress {
  readonly #names: readonly string[]
  readonly #path: string
  readonly #durations: Durations
  readonly #startedAt = performance.now()
  #step = 0
  #stepStartedAt = 0
  #saidAt = 0

  /** Runs of all scenarios, one after the other; the file says how long they took the last time. */
  constructor(names: readonly string[], path: string) {
    this.#names = names
    this.#path = path
    this.#durations = tolerant(() => JSON.parse(readFileSync(path, 'utf8')) as Durations) ?? {}
  }

  begin(): void {
    this.#stepStartedAt = performance.now()
    this.#saidAt = 0
    this.#step += 1
  }

  say(what: string, done: number, total: number): void {
    const { isTTY } = process.stderr
    const now = performance.now()
    if (now - this.#saidAt < (isTTY ? TERMINAL_MS : LOG_MS)) return
    this.#saidAt = now
    const left = this.#leftMs()
    const place = `[${this.#step}/${this.#names.length}] ${this.#name}: ${what} ${done}/${total}`
    const time = `${formatElapsed(now - this.#startedAt)}${left === undefined ? '' : `, about ${formatElapsed(left)} left`}`
    process.stderr.write(isTTY ? `\r\x1b[K… ${place}, ${time}` : `… ${place}, ${time}\n`)
  }

  /** How long the scenario took. */
  end(isWhole: boolean): number {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
    const tookMs = performance.now() - this.#stepStartedAt
    if (isWhole) this.#durations[this.#name] = tookMs
    return tookMs
  }

  /** For the next time; that it cannot be written spoils nothing. */
  async save(): Promise<void> {
    await writeAside(this.#path, JSON.stringify(this.#durations)).catch(() => {})
  }

  get #name(): string {
    return this.#names[this.#step - 1] ?? ''
  }

  /** One that never ran is taken for an average one. */
  #leftMs(): number | undefined {
    const known = Object.values(this.#durations)
    if (known.length === 0) return
    const average = known.reduce((sum, ms) => sum + ms, 0) / known.length
    const expect = (name: string) => this.#durations[name] ?? average
    const current = Math.max(0, expect(this.#name) - (performance.now() - this.#stepStartedAt))
    return this.#names.slice(this.#step).reduce((sum, name) => sum + expect(name), current)
  }
}
