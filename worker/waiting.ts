// A call that found no sandbox ready waits here: for one, for its deadline, or for its caller to give up.
import { PlatformError } from '../contract/errors.ts'
import type { FunctionPool, Waiter } from './function-pool.ts'

/** The longest wait of any call. Guess: whoever still has none then is better told to come again. */
const WAIT_MS_MAX = 10_000

interface Waiting {
  /** Called once, when a slot is ours. */
  readonly lease: (slot: number, isCold: true) => void
  readonly reject: (error: unknown) => void
  readonly onCancel: () => void
  readonly signal: AbortSignal | undefined
}

/** START_FAILED or NO_CAPACITY, thrown, where waiting is of no use; NO_CAPACITY, to `reject`, when it was in vain. */
export function waitForSlot(entry: FunctionPool, { lease, reject, onCancel, signal }: Waiting): void {
  const settle = () => {
    clearTimeout(timer)
    signal?.removeEventListener('abort', cancel)
    entry.forget(waiter)
  }
  const waiter: Waiter = {
    take: (slot) => {
      settle()
      lease(slot, true)
    },
    refuse: (error) => {
      settle()
      reject(error)
    },
  }
  const cancel = () => {
    settle()
    onCancel()
  }
  entry.wait(waiter)
  const timer = setTimeout(() => {
    waiter.refuse(new PlatformError('NO_CAPACITY', `${entry.spec.name}: no sandbox within ${WAIT_MS_MAX} ms`))
  }, WAIT_MS_MAX)
  signal?.addEventListener('abort', cancel, { once: true })
}
