// mayfly inspect: all that is known of a function, or of a sandbox as seen from outside.
import { stringify } from 'yaml'
import { errorIn } from '../api.ts'
import type { Command } from '../command.ts'
import { printable } from '../output.ts'

export const inspect: Command = {
  operands: 'FUNCTION|SANDBOX',
  summary: 'show a function, or a sandbox from outside: namespaces, mounts, limits, capabilities, filter',
  example: 'mayfly inspect echo',
  arity: [1, 1],
  async run({ api, output, operands: [name = ''] }) {
    // A function's name may look like a sandbox's id; the function was named by a person, so it goes first.
    const paths = [`/v1/functions/${encodeURIComponent(name)}`, `/v1/sandboxes/${encodeURIComponent(name)}`]
    for (const path of paths) {
      const answer = await api.ask('GET', path)
      if (answer.status === 200) {
        const report: unknown = JSON.parse(answer.body.toString())
        output.show(report, () => printable(stringify(report)))
        return 0
      }
      if (answer.status !== 404 && answer.status !== 400) throw errorIn(answer)
    }
    throw new Error(`no function and no sandbox is called ${JSON.stringify(name)}`)
  },
}
