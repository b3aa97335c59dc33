// mayfly inspect: all that is known of a function, or of a sandbox as seen from outside.
import { stringify } from 'yaml'
import { errorIn } from '../api.ts'
import type { Command } from '../command.ts'
import { printable } from '../output.ts'

/** `<instance>-<slot>-<generation>`. */
const SANDBOX_ID = /^[0-9a-z]+-\d+-\d+$/

export const inspect: Command = {
  operands: 'FUNCTION|SANDBOX',
  summary: 'show a function, or a sandbox from outside: namespaces, mounts, limits, capabilities, filter',
  example: 'mayfly inspect echo',
  arity: [1, 1],
  async run({ api, output, operands: [name = ''] }) {
    // A function's name may look like a sandbox's id; the function was named by a person, so it goes first.
    const asFunction = await api.ask('GET', `/v1/functions/${encodeURIComponent(name)}`)
    const isFunction = asFunction.status === 200 || !SANDBOX_ID.test(name)
    const answer = isFunction ? asFunction : await api.ask('GET', `/v1/sandboxes/${name}`)
    if (answer.status !== 200) throw errorIn(answer)
    const report: unknown = JSON.parse(answer.body.toString())
    output.show(report, () => printable(stringify(report)))
    return 0
  },
}
