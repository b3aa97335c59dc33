// mayfly config: every setting, its value, and where the value comes from.
import { settingsIn } from '../../contract/config.ts'
import type { Command } from '../command.ts'
import { table } from '../output.ts'

export const config: Command = {
  operands: '',
  summary: 'show every setting and where its value comes from',
  example: 'MAYFLY_SLOTS=16 mayfly config',
  arity: [0, 0],
  async run({ output }) {
    const settings = settingsIn()
    output.show({ settings: settings.map(({ name, value, source, help }) => ({ name, value, source, help })) }, () =>
      table(
        ['SETTING', 'VALUE', 'FROM', 'MEANING'],
        settings.map((row) => [row.name, String(row.value), row.source, row.help]),
      ),
    )
    return 0
  },
}
