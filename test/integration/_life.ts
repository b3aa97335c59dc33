// A process with a pool under load, to be killed at any moment: serves until it dies, or until its sandboxd does.
import { setImmediate as turn } from 'node:timers/promises'
import { openHouse } from '../_setup.ts'

const [home = '', uidBase] = process.argv.slice(2)
const house = await openHouse({ home, uidBase: Number(uidBase), slots: 32 }, { pool: { min: 6, max: 16 } })
// Crash-only: who lost sandboxd starts again.
void house.pool.closed.then(() => process.exit(70))
const rows = ['echo', 'sleep 5', 'fork 3', 'exit 1', 'fill_bytes /tmp/file 1', 'hold_streams']
for (;;) {
  await Promise.all(rows.map((row) => house.invoke(row).catch(() => {})))
  await turn()
}
