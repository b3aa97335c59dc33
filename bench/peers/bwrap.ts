// bubblewrap, as its users run it: every namespace it knows (not time), a read-only root, /proc and a small /dev.
import { installCommand } from './packages.ts'
import type { Peer } from './peer.ts'

const MOUNTS = ['--proc', '/proc', '--dev', '/dev']

export const bwrap: Peer = {
  name: 'bwrap --unshare-all',
  isolated: 'namespaces, a root; no limits, no filter',
  fresh: 'process, namespaces, /dev',
  program: 'bwrap',
  install: installCommand('bwrap'),
  command: (program, { root }) => [program, '--unshare-all', '--ro-bind', root, '/', ...MOUNTS, '/guest', 'once'],
}
