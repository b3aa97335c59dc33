// systemd-nspawn, the container that comes with most distributions, where no systemd needs to run: its own unit, not
// registered, its network private. It passes on descriptors from 3 up to whoever says like a socket-activated service
// that there are some, with its process id: that is all the shell is for.
import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { installCommand } from './packages.ts'
import type { Peer } from './peer.ts'
import { makePeersFolder } from './place.ts'

/** It wants a tree that looks like a system's, and mounts here. */
const FOLDERS = ['usr', 'etc', 'proc', 'sys', 'dev', 'run', 'tmp', 'var', 'root']
const WITHOUT_UNIT = ['--register=no', '--keep-unit', '--link-journal=no', '--timezone=off', '--resolv-conf=off']
const OPTIONS = ['--quiet', '--pipe', '--read-only', '--private-network', ...WITHOUT_UNIT]

export const nspawn: Peer = {
  name: 'systemd-nspawn --private-network',
  isolated: 'namespaces but user, a root, a filter; no limits',
  fresh: 'process, namespaces, /dev, /run, /tmp',
  program: 'systemd-nspawn',
  install: installCommand('systemd-nspawn'),
  every: 10,
  async command(program, { root }) {
    const tree = await makePeersFolder('nspawn-root')
    for (const name of FOLDERS) await mkdir(join(tree, name), { recursive: true })
    await copyFile(join(root, 'guest'), join(tree, 'guest'))
    const script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    return ['/bin/sh', '-c', script, 'sh', program, ...OPTIONS, `--directory=${tree}`, '/guest', 'once']
  },
}
