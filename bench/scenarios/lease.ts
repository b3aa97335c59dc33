// What a call costs from JavaScript: when a sandbox is ready for it, when none is, and where the time of building goes.
import type { Scenario } from '../scenario.ts'
import { miss } from './lease-miss.ts'
import { pooled } from './lease-pooled.ts'
import { stages } from './lease-stages.ts'

export const lease: Scenario = {
  name: 'lease',
  help: 'a fresh call from the pool beside a plain child; a miss beside bubblewrap and unshare(1)',
  run: async (context) => [await pooled(context), await miss(context), await stages(context)],
}
