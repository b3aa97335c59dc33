// unshare(1) with all namespaces: what the kernel's part of a sandbox costs, without a root of its own or any limit.
import { installCommand } from './packages.ts'
import type { Peer } from './peer.ts'

const KINDS = [
  '--user',
  '--map-root-user',
  '--mount',
  '--pid',
  '--fork',
  '--net',
  '--ipc',
  '--uts',
  '--cgroup',
  '--time',
]

export const unshare: Peer = {
  name: 'unshare(1), all namespaces',
  isolated: 'all namespaces; the host’s root, no limits',
  fresh: 'process, namespaces',
  program: 'unshare',
  install: installCommand('unshare'),
  command: (program, { root }) => [program, ...KINDS, '--mount-proc', `${root}/guest`, 'once'],
}
