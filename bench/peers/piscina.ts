// piscina: worker threads that are kept and used again, the usual way to take work off Node's main thread. A crash, a
// loop or a leak in one is the whole process's.
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import type { CalledPeer } from './callee.ts'
import { requirePeer } from './place.ts'

/** As far as it is used here. */
interface Piscina {
  run(task: Uint8Array, options: { name: string }): Promise<Uint8Array>
  destroy(): Promise<void>
}
type PiscinaClass = new (options: { filename: string; minThreads: number; maxThreads: number }) => Piscina

export const piscina: CalledPeer = {
  name: 'piscina, worker threads',
  isolated: 'JavaScript heap',
  fresh: '-',
  package: 'piscina',
  async open() {
    const { Piscina } = requirePeer('piscina') as { Piscina: PiscinaClass }
    const threads = availableParallelism()
    const filename = join(import.meta.dirname, 'piscina-worker.ts')
    const pool = new Piscina({ filename, minThreads: threads, maxThreads: threads })
    return {
      call: async (payload) => ({ answer: await pool.run(payload, { name: 'echo' }) }),
      close: () => pool.destroy(),
    }
  },
}
