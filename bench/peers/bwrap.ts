// bubblewrap, as its users run it: every namespace it knows, a read-only root, /proc and a small /dev.
import { installCommand } from './packages.ts'
import type { Peer } from './peer.ts'

const MOUNTS = ['--proc', '/proc', '--dev', '/dev']

export const bwrap: Peer = {
  name: 'bwrap --unshare-all',
  isolated: 'user mount pid net ipc uts cgroup namespaces, a root of its own',
  fresh: 'process, namespaces, /dev',
  program: 'bwrap',
  install: installCommand('bwrap'),
  command: (program, { root }) => [program, '--unshare-all', '--ro-bind', root, '/', ...MOUNTS, '/guest', 'once'],
}
