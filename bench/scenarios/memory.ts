// What idle sandboxes cost: memory, each and by whom it is held; and whether many of them slow down the start of another
// or the lease of one.
import type { Scenario } from '../scenario.ts'
import { held } from './memory-held.ts'
import { slowdown } from './memory-lease.ts'

export const memory: Scenario = {
  name: 'memory',
  help: 'memory of 10, 100 and 1,000 idle sandboxes; starts and leases beside them',
  run: async (context) => [await held(context), await slowdown(context)],
}
