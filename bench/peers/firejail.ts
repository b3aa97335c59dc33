// firejail, which desktop users put before a program: no profile (the default one is for programs with a home folder),
// no network.
import { installCommand } from './packages.ts'
import type { Peer } from './peer.ts'

export const firejail: Peer = {
  name: 'firejail --net=none',
  isolated: 'namespaces but user; the host’s root, no limits',
  fresh: 'process, namespaces',
  program: 'firejail',
  install: installCommand('firejail'),
  every: 4,
  command: (program, { root }) => [
    program,
    '--quiet',
    '--noprofile',
    '--net=none',
    '--keep-fd=3',
    '--',
    `${root}/guest`,
    'once',
  ],
}
