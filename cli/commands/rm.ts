// mayfly rm: takes a function away. Its image stays.
import type { Command } from '../command.ts'

export const rm: Command = {
  operands: 'FUNCTION…',
  summary: 'remove functions',
  example: 'mayfly rm echo',
  arity: [1, 1000],
  async run({ api, output, operands }) {
    for (const name of operands) await api.json('DELETE', `/v1/functions/${encodeURIComponent(name)}`)
    output.show({ removed: operands }, () => operands.map((name) => `removed ${name}\n`).join(''))
    return 0
  },
}
