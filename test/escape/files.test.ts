// Of files: the root and nothing above it, a /proc and a /dev of few names, and room that ends.
import { describe, expect, it } from 'vitest'
import type { Image } from '../../contract/function.ts'
import { privileged, useHouse } from '../_setup.ts'

const MIB = 1024 * 1024
const ST_NOSUID = 2
const ST_NODEV = 4

privileged('files', () => {
  describe('with every layer on', () => {
    const house = useHouse({}, { limits: { tmpBytes: 8 * MIB, tmpFiles: 200, memoryBytes: 64 * MIB } })

    it('starts with the descriptors of its contract, at the root', async () => {
      expect(await house.row('fds')).toMatchObject({ open_fds: [0, 1, 2, 3], cwd: '/' })
      await house.deploy({ name: 'stdio', contract: 'stdio', command: ['/probe', 'stdio'], pool: { min: 1, max: 1 } })
      expect(await house.row('fds', { name: 'stdio' })).toMatchObject({ open_fds: [0, 1, 2], cwd: '/' })
      await house.pool.remove('stdio')
    })

    it('cannot climb above its root, by no path and no descriptor', async () => {
      const seen = (await house.row('walk')) as { names: string[]; mount_ids: number[] }
      expect(seen).toMatchObject({ climbed: 64, is_root: 1, left_by_fd: [] })
      expect(seen.names.sort()).toEqual(['dev', 'folder', 'open', 'probe', 'probe-set-id', 'proc', 'tmp'])
    })

    it('has few mounts, none of a cgroup, and none that tells where the host keeps things', async () => {
      const { lines } = (await house.row('lines /proc/self/mountinfo')) as { lines: string[] }
      expect(lines.length).toBeLessThanOrEqual(12)
      const text = lines.join('\n')
      expect(text).not.toMatch(/cgroup|sysfs|devpts|mqueue/)
      expect(text).not.toContain(house.home)
      for (const layer of house.image.layers) expect(text).not.toContain(layer.slice('sha256:'.length))
    })

    it('finds no release_agent and no /sys', async () => {
      expect(await house.row('release_agent')).toMatchObject({ release_agents: 0, sys: 'ENOENT' })
    })

    it('is named and killed when it mounts a cgroup', async () => {
      expect((await house.invoke('call mount_cgroup')).outcome).toMatchObject({ status: 'denied', syscall: 'mount' })
    })

    it('sees of /proc only processes', async () => {
      const { names } = (await house.row('list /proc')) as { names: string[] }
      expect(names.filter((name) => !/^(\d+|self|thread-self)$/.test(name))).toEqual([])
    })

    it.each(['/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/sys/kernel/uevent_helper', '/proc/kcore'])(
      'does not have the sink %s',
      async (path) => {
        expect(await house.row(`open ${path} w`)).toMatchObject({ opened: 'ENOENT' })
      },
    )

    it('has exactly the devices a program may expect', async () => {
      const seen = (await house.row('dev')) as { names: string[]; devices: Record<string, string> }
      const names = ['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero']
      expect(seen.names.sort()).toEqual(names)
      expect(seen.devices).toEqual({ full: '1:7', null: '1:3', random: '1:8', urandom: '1:9', zero: '1:5' })
    })

    it('makes no device node', async () => {
      expect(await house.row('make_nodes')).toMatchObject({ memory: 'EPERM', disk: 'EPERM', null: 'EPERM' })
    })

    it('shows the image as owned by root, and none of it as its own', async () => {
      for (const path of ['/', '/folder', '/folder/file', '/probe', '/dev', '/tmp'])
        expect(await house.row(`owner ${path}`), path).toMatchObject({ uid: 0, gid: 0 })
    })

    it('replaces a folder of the image where the image lets it, and nowhere else', async () => {
      const replaced = { removed: 0, after_remove: 'ENOENT', made: 0, names: [] }
      for (let i = 0; i < 2; i++) expect(await house.row('replace_folder /open/inner/deeper')).toMatchObject(replaced)
      expect(await house.row('replace_folder /folder')).toMatchObject({ removed: 'EACCES', made: 'EEXIST' })
    })

    it('has set-id bits neither on disk nor in effect', async () => {
      expect(await house.row('owner /probe-set-id')).toMatchObject({ mode: 0o755 })
      const { answer } = await house.row('run /probe-set-id ids')
      expect(JSON.parse(answer as string)).toMatchObject({ uid: 1000, euid: 1000, gid: 1000, egid: 1000 })
    })

    it.each(['/tmp', '/dev/shm'])('fills %s up to its size', async (path) => {
      const seen = await house.row(`fill_bytes ${path}/file 32`)
      expect(seen['last']).toMatch(/^(ENOSPC|EFBIG)$/)
      expect(seen['wrote']).toBeGreaterThan(7 * MIB)
      expect(seen['wrote']).toBeLessThanOrEqual(8 * MIB)
    })

    it('makes files up to their number', async () => {
      const seen = await house.row('fill_inodes /tmp 1000')
      expect(seen['last']).toBe('ENOSPC')
      expect(seen['made']).toBeGreaterThanOrEqual(190)
      expect(seen['made']).toBeLessThanOrEqual(200)
    })

    it.each(['/tmp/left', '/dev/shm/left'])('finds nothing of an earlier call at %s', async (path) => {
      for (let i = 0; i < 3; i++) expect(await house.row(`leave ${path}`)).toMatchObject({ was_there: 0, left: 0 })
    })

    it('allows no set-id and no devices on any mount', async () => {
      for (const path of ['/', '/tmp', '/dev/shm']) {
        const { flags } = (await house.row(`space ${path}`)) as { flags: number }
        expect(flags & (ST_NOSUID | ST_NODEV), path).toBe(ST_NOSUID | ST_NODEV)
      }
    })
  })

  describe('without its mount namespace', () => {
    const inLayer = (image: Image) => ({ command: [`/layers/${image.layers[0]?.slice('sha256:'.length)}/probe`] })
    const house = useHouse({ ablate: ['mount_ns'] }, inLayer)

    it('sees the mounts of the house', async () => {
      const { lines } = (await house.row('lines /proc/self/mountinfo')) as { lines: string[] }
      // As mountinfo writes the space in the name of the home.
      expect(lines.join('\n')).toContain(house.home.replaceAll(' ', '\\040'))
    })
  })

  describe('without the options of its /proc', () => {
    const house = useHouse({ ablate: ['proc_options'] })

    it('reads what the machine is', async () => {
      const { names } = (await house.row('list /proc')) as { names: string[] }
      expect(names).toContain('cpuinfo')
    })
  })

  describe('without closing descriptors', () => {
    const house = useHouse({ ablate: ['close_fds'] })

    it('starts with one too many', async () => {
      const { open_fds } = (await house.row('fds')) as { open_fds: number[] }
      expect(open_fds.length).toBeGreaterThan(4)
    })
  })

  describe('without the flags of its mounts', () => {
    const house = useHouse({ ablate: ['nosuid', 'nodev'] })

    it('would honour set-id bits and device nodes', async () => {
      const { flags } = (await house.row('space /tmp')) as { flags: number }
      expect(flags & (ST_NOSUID | ST_NODEV)).toBe(0)
    })
  })

  describe('without a size', () => {
    const house = useHouse({ ablate: ['tmpfs_size', 'rlimits'] }, { limits: { tmpBytes: 8 * MIB, tmpFiles: 200 } })

    it('fills more than it may', async () => {
      expect(await house.row('fill_bytes /tmp/file 16')).toMatchObject({ last: 0, wrote: 16 * MIB })
      expect(await house.row('fill_inodes /tmp 1000')).toMatchObject({ last: 0, made: 1000 })
    })
  })

  describe('without the filter', () => {
    const house = useHouse({ ablate: ['seccomp'] })

    it('still mounts nothing and makes no device node, for want of capabilities', async () => {
      expect(await house.row('call mount_cgroup')).toMatchObject({ returned: 'EPERM' })
      expect(await house.row('call chroot')).toMatchObject({ returned: 'EPERM' })
      expect(await house.row('make_nodes')).toMatchObject({ memory: 'EPERM', disk: 'EPERM', null: 'EPERM' })
    })
  })
})
