// What a call costs from JavaScript: when a sandbox is ready for it, when none is, and where the time of building goes.
import type { Context, Scenario, Section } from '../scenario.ts'
import { link } from './lease-link.ts'
import { miss } from './lease-miss.ts'
import { open, paced } from './lease-pauses.ts'
import { stages } from './lease-stages.ts'

const SECTIONS: readonly ((context: Context) => Promise<Section>)[] = [link, paced, open, miss, stages]

export const lease: Scenario = {
  name: 'lease',
  help: 'a fresh call from the pool beside a plain child; a miss beside bubblewrap and unshare(1)',
  async run(context) {
    const sections: Section[] = []
    for (const measure of SECTIONS) sections.push(await measure(context))
    return sections
  },
}
