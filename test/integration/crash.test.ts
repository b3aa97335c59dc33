// Crash-only: whoever is killed, whenever, the next life finds nothing of the earlier one and serves.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { audit, processesOfPool, UID_BASE } from '../_host.ts'
import { openHouse, privileged, until } from '../_setup.ts'

const ROUNDS = 12
/** From launching, through building, to full load. */
const LIFE_MS_MAX = 1_500

privileged('after SIGKILL of', () => {
  for (const victims of ['sandboxd', 'nursery', 'node', 'both'] as const) {
    it(`${victims} at ${ROUNDS} random moments nothing stays, and the next life serves`, async () => {
      const home = mkdtempSync(join(tmpdir(), 'mayfly crash '))
      chmodSync(home, 0o755)
      const mounts = audit('none').mounts
      const seed = Date.now() % 1_000_000
      try {
        for (let round = 0; round < ROUNDS; round++) {
          const lifeMs = random(seed, round) * LIFE_MS_MAX
          await liveAndDie(home, victims, lifeMs)
          await until(() => processesOfPool().length === 0)
        }
        const house = await openHouse({ home })
        expect((await house.invoke('echo', { body: 'alive' })).outcome.status, `seed ${seed}`).toBe('ok')
        const { instance } = house.pool.stats()
        expect(readdirSync(join(home, 'run')).filter((name) => name.endsWith('.json'))).toEqual([`${instance}.json`])
        expect(readdirSync(join(home, 'layers')).filter((name) => name.startsWith('.'))).toEqual([])
        await house.close()
        await until(() => processesOfPool().length === 0)
        expect(cgroupsOfPool(), `seed ${seed}`).toEqual([])
        expect(audit(instance).mounts).toBe(mounts)
      } finally {
        rmSync(home, { recursive: true, force: true })
      }
    }, 120_000)
  }
})

async function liveAndDie(
  home: string,
  victims: 'sandboxd' | 'nursery' | 'node' | 'both',
  lifeMs: number,
): Promise<void> {
  const program = join(import.meta.dirname, '_life.ts')
  const node = spawn(process.execPath, [program, home, `${UID_BASE}`], { stdio: ['ignore', 'pipe', 'ignore'] })
  const ended = once(node, 'exit')
  await delay(lifeMs)
  if (victims === 'nursery') kill('mayfly-nursery')
  if (victims === 'sandboxd' || victims === 'both') kill('mayfly-sandboxd')
  if (victims === 'node' || victims === 'both') node.kill('SIGKILL')
  // A life whose sandboxd was not there yet to be killed goes on; it is ended when it would be again.
  const stillborn = setInterval(() => kill('mayfly-sandboxd'), 500)
  await ended
  clearInterval(stillborn)
}

function kill(victim: string): void {
  for (const { pid, uid } of processesOfPool().filter(({ name }) => name === victim)) {
    // An init shows the same name for a moment, but not for long M-root's id.
    if (uid === UID_BASE) killIfThere(pid)
  }
}

/** The nursery's child that opens a user namespace has its name and id, and may have ended since it was listed. */
function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Every group of any life of ours: below the node that belongs to the ids of this test's pools. */
function cgroupsOfPool(): string[] {
  const mounts = ['', ...readdirSync('/sys/fs/cgroup')].map((name) =>
    join('/sys/fs/cgroup', name, `mayfly-${UID_BASE}`),
  )
  return mounts.filter(existsSync).flatMap((node) => {
    const lives = readdirSync(node, { withFileTypes: true }).filter((entry) => entry.isDirectory())
    return lives.map(({ name }) => join(node, name))
  })
}

/** A number in [0, 1), the same for the same seed and round. */
function random(seed: number, round: number): number {
  const mixed = Math.imul(seed ^ (round * 0x9e37_79b1), 0x85eb_ca6b) >>> 0
  return mixed / 2 ** 32
}
