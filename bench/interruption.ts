// How a run ends early: the first signal lets the scenario clean up at its next step, the second does not wait.
import { constants } from 'node:os'

/** Closing pools may take its time, and a scenario may be stuck. */
const GRACE_MS = 30_000

export class Interrupted extends Error {
  readonly exitCode: number

  constructor(signal: NodeJS.Signals) {
    super(`ended by ${signal}`)
    this.exitCode = exitCodeOf(signal)
  }
}

export interface Interruption {
  /** Throws once a signal has come. */
  check(): void
}

export function watchSignals(): Interruption {
  let came: NodeJS.Signals | undefined
  const onSignal = (signal: NodeJS.Signals) => {
    if (came !== undefined) process.exit(exitCodeOf(signal))
    came = signal
    process.stderr.write('\nbench: ending; once more to not wait for what is open\n')
    setTimeout(() => process.exit(exitCodeOf(signal)), GRACE_MS).unref()
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  return {
    check() {
      if (came !== undefined) throw new Interrupted(came)
    },
  }
}

function exitCodeOf(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal]
}
