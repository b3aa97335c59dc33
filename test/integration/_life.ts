// A process with a pool under load, to be killed at any moment: says on stdout what it is, then serves until it dies.
import { openHouse } from '../_setup.ts'

const house = await openHouse({ home: process.argv[2] ?? '', uidBase: Number(process.argv[3]), slots: 32 }, { pool: { min: 6, max: 16 } })
process.stdout.write(`${JSON.stringify({ instance: house.pool.stats().instance })}\n`)
const rows = ['echo', 'sleep 5', 'fork 3', 'exit 1', 'fill_bytes /tmp/file 1', 'hold_streams']
for (let i = 0; ; i++) {
  await Promise.all(rows.map((row) => house.invoke(row).catch(() => {})))
}
