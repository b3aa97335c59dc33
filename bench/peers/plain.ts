// The binary itself, started and nothing else: the floor of any cold start.
import type { Peer } from './peer.ts'

export function plain(root: string): Peer {
  return {
    name: 'vfork and exec, no isolation',
    isolated: '-',
    fresh: 'process',
    program: `${root}/guest`,
    install: 'it is built by this benchmark',
    command: (program) => [program, 'once'],
  }
}
