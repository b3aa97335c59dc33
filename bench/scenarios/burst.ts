// What happens when many calls come at once: a hundred for which nothing is ready, beside a hundred of what people would
// run instead; and how many a given pool serves back to back before the first has to wait.
import type { Scenario } from '../scenario.ts'
import { atOnce } from './burst-cold.ts'
import { withoutMiss } from './burst-ready.ts'

export const burst: Scenario = {
  name: 'burst',
  help: 'a hundred sandboxes at once from nothing; the longest burst that a pool serves',
  run: async (context) => [await atOnce(context), await withoutMiss(context)],
}
