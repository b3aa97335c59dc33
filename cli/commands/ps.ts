// mayfly ps: the sandboxes there are right now.
import type { Command } from '../command.ts'
import { table } from '../output.ts'

interface Sandbox {
  readonly id: string
  readonly function: string
  readonly state: string
  readonly hostPid: number
  readonly ageMs: number
}

export const ps: Command = {
  operands: '[FUNCTION]',
  summary: 'list the sandboxes',
  example: 'mayfly ps echo',
  arity: [0, 1],
  async run({ api, output, operands: [name] }) {
    const answer = await api.json<{ sandboxes: readonly Sandbox[] }>('GET', '/v1/sandboxes')
    const sandboxes = answer.sandboxes.filter((sandbox) => name === undefined || sandbox.function === name)
    output.show({ sandboxes }, () =>
      table(
        ['SANDBOX', 'FUNCTION', 'STATE', 'PID', 'AGE'],
        sandboxes.map((one) => [one.id, one.function, one.state, one.hostPid, `${(one.ageMs / 1000).toFixed(1)} s`]),
      ),
    )
    return 0
  },
}
