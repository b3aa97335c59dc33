// mayfly ls: what is deployed, and how many sandboxes of each function wait.
import type { Command } from '../command.ts'
import { table } from '../output.ts'

interface FunctionSummary {
  readonly name: string
  readonly version: string
  readonly image: string
  readonly contract: string
}
interface PoolStats {
  readonly functions: readonly { readonly name: string; readonly ready: number; readonly leased: number }[]
}

export const ls: Command = {
  operands: '',
  summary: 'list the functions',
  example: 'mayfly ls',
  arity: [0, 0],
  async run({ api, output }) {
    const { functions } = await api.json<{ functions: readonly FunctionSummary[] }>('GET', '/v1/functions')
    const pool = await api.json<PoolStats>('GET', '/v1/pool')
    const rows = functions.map(({ name, image, contract, version }) => {
      const counts = pool.functions.find((one) => one.name === name)
      return { name, image, contract, version, ready: counts?.ready ?? 0, leased: counts?.leased ?? 0 }
    })
    output.show({ functions: rows }, () =>
      table(
        ['FUNCTION', 'CONTRACT', 'READY', 'LEASED', 'IMAGE', 'VERSION'],
        rows.map((row) => [row.name, row.contract, row.ready, row.leased, row.image, row.version.slice(7, 19)]),
      ),
    )
    return 0
  },
}
