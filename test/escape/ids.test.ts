// Of ids, names and what else a process is: nobody, without a capability, in namespaces of its own.
import { describe, expect, it } from 'vitest'
import type { Image } from '../../contract/function.ts'
import { NAMESPACES, namespacesOf, processesOfPool, UID_BASE } from '../_host.ts'
import { type House, privileged, type Seen, useHouse } from '../_setup.ts'

const NO_CAPABILITY = '0000000000000000'

/** Of every sandbox that stands now: inodes of those gone are given out again. */
async function namespacesOfAll(house: House): Promise<Readonly<Record<string, string>>[]> {
  await house.rest()
  return house.pool.sandboxes().map(({ hostPid }) => namespacesOf(hostPid))
}

privileged('ids', () => {
  describe('with every layer on', () => {
    const house = useHouse({}, { env: { GIVEN: 'by the manifest' } })

    it('is the user of its image and can become no other', async () => {
      expect(await house.row('ids')).toMatchObject({
        ...{ uid: 1000, euid: 1000, suid: 1000, gid: 1000, egid: 1000, sgid: 1000, groups: 0 },
        ...{ become_root: 'EPERM', become_root_group: 'EPERM', take_groups: 'EPERM' },
      })
    })

    it('is in a user namespace of two ids', async () => {
      const { lines } = (await house.row('lines /proc/self/uid_map')) as { lines: string[] }
      expect(lines.map((line) => line.trim().split(/\s+/)).map(([inside, , count]) => [inside, count])).toEqual([
        ['0', '1'],
        ['1000', '1'],
      ])
    })

    it('has no capability in any set, no group and no way to gain privileges', async () => {
      expect(await house.row('status')).toMatchObject({
        ...{ CapInh: NO_CAPABILITY, CapPrm: NO_CAPABILITY, CapEff: NO_CAPABILITY },
        ...{ CapBnd: NO_CAPABILITY, CapAmb: NO_CAPABILITY, NoNewPrivs: '1' },
      })
      expect(((await house.row('status'))['Groups'] as string).trim()).toBe('')
    })

    it('runs under a host id of its own slot', async () => {
      const probes = processesOfPool().filter(({ name }) => name === 'probe')
      expect(probes.length).toBeGreaterThan(1)
      expect(new Set(probes.map(({ uid }) => uid)).size).toBe(probes.length)
      expect(probes.every(({ uid }) => uid >= UID_BASE + 1000)).toBe(true)
    })

    it('is in eight namespaces that no one else is in', async () => {
      const all = [namespacesOf(process.pid), ...(await namespacesOfAll(house))]
      expect(all.length).toBeGreaterThan(2)
      for (const kind of NAMESPACES) expect(new Set(all.map((of) => of[kind])).size, kind).toBe(all.length)
    })

    it('has a host name that is not the host’s', async () => {
      const { hostname } = await house.row('hostname')
      expect(hostname).not.toBe((await import('node:os')).hostname())
    })

    it('sees its cgroup as the root of all', async () => {
      const { lines } = (await house.row('lines /proc/self/cgroup')) as { lines: string[] }
      expect(lines.length).toBeGreaterThan(0)
      for (const line of lines) expect(line).toMatch(/:\/$/)
    })

    it('has a clock that does not tell how long the host is up', async () => {
      const { monotonic_ms } = (await house.row('clocks')) as { monotonic_ms: number }
      const hostMs = Number(process.hrtime.bigint() / 1_000_000n)
      expect(hostMs - monotonic_ms).toBeGreaterThan(1000)
    })

    it('has the variables of its image and its manifest, and no other', async () => {
      const { env } = (await house.row('env')) as { env: string[] }
      expect(env.map((entry) => entry.split('=')[0]).sort()).toEqual(['FROM_IMAGE', 'GIVEN', 'PATH'])
    })

    it('has limits it cannot raise', async () => {
      const seen = await house.row('limits')
      expect(seen).toMatchObject({ core: [1, 1], nofile: [256, 256], msgqueue: [0, 0], raise: 'EPERM' })
    })
  })

  const changed: readonly [layers: readonly string[], line: string, sign: (seen: Seen) => boolean][] = [
    [['caps'], 'status', (seen) => seen['CapBnd'] !== NO_CAPABILITY],
    [['no_new_privs', 'seccomp'], 'status', (seen) => seen['NoNewPrivs'] === '0'],
    [['user_ns'], 'lines /proc/self/uid_map', (seen) => (seen['lines'] as string[]).length === 1],
    [
      ['cgroup_ns'],
      'lines /proc/self/cgroup',
      (seen) => !(seen['lines'] as string[]).every((line) => /:\/$/.test(line)),
    ],
    [['rlimits'], 'limits', (seen) => JSON.stringify(seen['core']) !== '[1,1]'],
  ]
  describe.each(changed)('without %s', (layers, line, sign) => {
    const house = useHouse({ ablate: layers })

    it('the same look shows it', async () => {
      const seen = await house.row(line)
      expect(sign(seen), JSON.stringify(seen)).toBe(true)
    })
  })

  describe.each(['net', 'ipc', 'uts', 'cgroup', 'mnt'])('without its %s namespace', (kind) => {
    const inLayer = (image: Image) => ({ command: [`/layers/${image.layers[0]?.slice('sha256:'.length)}/probe`] })
    const house = useHouse({ ablate: [kind === 'mnt' ? 'mount_ns' : `${kind}_ns`] }, kind === 'mnt' ? inLayer : {})

    it('shares it', async () => {
      const [first, ...others] = await namespacesOfAll(house)
      expect(others.length).toBeGreaterThan(0)
      for (const other of others) expect(other[kind]).toBe(first?.[kind])
    })
  })

  describe('without the time namespace', () => {
    const house = useHouse({ ablate: ['time_ns'] })

    it('its clock is the host’s', async () => {
      const { monotonic_ms } = (await house.row('clocks')) as { monotonic_ms: number }
      expect(Math.abs(Number(process.hrtime.bigint() / 1_000_000n) - monotonic_ms)).toBeLessThan(1000)
    })
  })

  describe('without the filter', () => {
    const house = useHouse({ ablate: ['seccomp'] })

    it('its securebits are locked and its ids still not to be changed', async () => {
      expect(await house.row('ids')).toMatchObject({ securebits: 0x2f, become_root: 'EPERM', take_groups: 'EPERM' })
    })
  })
})
