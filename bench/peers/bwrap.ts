// bubblewrap, as its users run it: every namespace it knows, a read-only root, /proc and a small /dev.
import type { Peer } from './peer.ts'

export const bwrap: Peer = {
  name: 'bwrap --unshare-all',
  isolated: 'user mount pid net ipc uts cgroup namespaces',
  fresh: 'process, namespaces, /dev',
  program: 'bwrap',
  install: 'apt-get install bubblewrap, or node cli/setup.mjs --test',
  args: (root) => ['--unshare-all', '--ro-bind', root, '/', '--proc', '/proc', '--dev', '/dev', '/guest', 'once'],
}
