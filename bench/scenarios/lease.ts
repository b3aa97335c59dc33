// What a call costs from JavaScript: when a sandbox is ready for it, when none is, and where the time of building goes.
import type { Context, Scenario, Section } from '../scenario.ts'
import { link } from './lease-link.ts'
import { miss } from './lease-miss.ts'
import { open, paced } from './lease-pauses.ts'
import { stages } from './lease-stages.ts'
import { stdio } from './lease-stdio.ts'

const PARTS: readonly ((context: Context) => Promise<Section | readonly Section[]>)[] = [
  ...[link, paced, open],
  ...[stdio, miss, stages],
]

export const lease: Scenario = {
  name: 'lease',
  help: 'a call from the pool beside a plain child, fresh, reused and stdio; a miss beside its peers; where time goes',
  async run(context) {
    const sections: Section[] = []
    for (const measure of PARTS) sections.push(...[await measure(context)].flat())
    return sections
  },
}
