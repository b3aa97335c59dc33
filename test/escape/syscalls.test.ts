// Of system calls: the forbidden are named and their process is killed before they do anything, newer ones do not
// exist, foreign tables end the process.
import { describe, expect, it } from 'vitest'
import { privileged, useHouse } from '../_setup.ts'

/** A row's name, where it differs from the call it makes. */
const CALL_OF_ROW: Readonly<Record<string, string>> = { mount_cgroup: 'mount', ptrace_self: 'ptrace' }
const FORBIDDEN = [
  ...['mount', 'mount_cgroup', 'umount2', 'unshare', 'setns', 'chroot', 'pivot_root', 'ptrace', 'ptrace_self'],
  ...['process_vm_readv', 'add_key', 'keyctl', 'bpf', 'perf_event_open', 'fsopen', 'open_tree', 'open_by_handle_at'],
  ...['syslog', 'kexec_load', 'delete_module', 'sethostname'],
]
/** io_uring, clone3, splice, openat2, pidfd_open, userfaultfd, memfd_create, and one that no kernel has yet. */
const PROBES = [425, 426, 427, 435, 275, 276, 278, 437, 434, 323, 319, 999]

privileged('system calls', () => {
  describe('with every layer on', () => {
    const house = useHouse()

    it.each(FORBIDDEN)('%s is named and its process killed', async (row) => {
      const { outcome } = await house.invoke(`call ${row}`)
      expect(outcome).toMatchObject({ status: 'denied', syscall: CALL_OF_ROW[row] ?? row })
    })

    it.each([1, 4, 8])(
      'a forbidden call that signals interrupt in %d threads is denied all the same',
      async (threads) => {
        const { outcome } = await house.invoke(`restless ${threads}`, { limits: { wallMs: 5000 } })
        expect(outcome).toMatchObject({ status: 'denied', syscall: 'unshare' })
      },
    )

    it('newer and optional calls do not exist, so that their callers fall back', async () => {
      const { returned } = await house.row(`numbers ${PROBES.slice(0, 14).join(' ')}`)
      expect(returned).toEqual(PROBES.map(() => 'ENOSYS'))
    })

    it('a call of the i386 table ends the process', async () => {
      expect((await house.invoke('i386')).outcome).toMatchObject({ status: 'signaled', signal: 'SIGSYS' })
    })

    it('a call of the x32 table ends the process', async () => {
      expect((await house.invoke('x32')).outcome).toMatchObject({ status: 'signaled', signal: 'SIGSYS' })
    })

    it('every thread has the filter', async () => {
      expect(await house.row('filters')).toMatchObject({ threads: ['2'] })
      expect(await house.row('status')).toMatchObject({ Seccomp: '2', Seccomp_filters: '1', NoNewPrivs: '1' })
    })

    it('the mitigation of speculative store bypass is not traded away', async () => {
      const { Speculation_Store_Bypass: mitigation } = await house.row('status')
      expect(mitigation).not.toBe('thread vulnerable')
    })

    it('a denied call keeps nothing of the next one', async () => {
      expect((await house.invoke('call unshare')).outcome.status).toBe('denied')
      expect(await house.row('ids')).toMatchObject({ pid: 2 })
    })
  })

  describe('without the filter', () => {
    const house = useHouse({ ablate: ['seccomp'] })

    it('a call of the i386 table answers', async () => {
      expect(await house.row('i386')).toMatchObject({ pid: 2 })
    })

    it('io_uring exists', async () => {
      const { returned } = await house.row('numbers 425')
      expect(returned).toEqual(['EFAULT'])
    })

    it('forbidden calls come back, refused by the layer behind', async () => {
      for (const row of ['mount', 'unshare', 'chroot', 'syslog', 'sethostname', 'open_by_handle_at']) {
        const { returned } = await house.row(`call ${row}`)
        expect(returned, row).toMatch(/^(EPERM|ENOSPC)$/)
      }
      // What a function may do to itself, or for itself, is what only the filter forbids.
      expect(await house.row('call ptrace_self')).toMatchObject({ returned: 0 })
    })

    it('nested namespaces are refused by their number', async () => {
      expect(await house.row('nest')).toMatchObject({ user: 'ENOSPC', mnt: 'EPERM', net: 'EPERM', pid: 'EPERM' })
    })
  })

  describe('without the filter and without the limit on nested namespaces', () => {
    const house = useHouse({ ablate: ['seccomp', 'nested_ns'] })

    it('nested namespaces are made', async () => {
      expect(await house.row('nest')).toMatchObject({ user: 0 })
    })
  })
})
