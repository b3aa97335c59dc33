// runc and crun: what containers are made with, called as container engines call them and without an engine, whose
// daemon and image handling would come on top. Limits are those a function of ours has by default.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DEFAULT_LIMITS } from '../../contract/limits.ts'
import { installCommand } from './packages.ts'
import type { Peer } from './peer.ts'
import { makePeersFolder } from './place.ts'

const CPU_PERIOD_US = 100_000
const NOBODY = 65_534
const NAMESPACES = ['pid', 'network', 'ipc', 'uts', 'mount', 'cgroup']

let containers = 0

export const runc: Peer = oci('runc')
export const crun: Peer = oci('crun')

function oci(name: 'runc' | 'crun'): Peer {
  return {
    name: `${name} run`,
    isolated: 'namespaces but user, a root, limits; no filter',
    fresh: 'process, namespaces, cgroups, /dev',
    program: name,
    install: installCommand(name),
    every: 4,
    async command(program, { root }) {
      const folder = await makePeersFolder('oci')
      await writeFile(join(folder, 'config.json'), JSON.stringify(configOf(root)))
      const state = join(folder, `${name}-state`)
      await mkdir(state, { recursive: true })
      // The spawner starts one when the one before is gone, so that they can share a name.
      containers += 1
      const id = `mayfly-bench-${name}-${process.pid}-${containers}`
      return [program, '--root', state, 'run', '--preserve-fds', '1', '--bundle', folder, id]
    },
  }
}

function configOf(root: string) {
  const { memoryBytes, pids, cpu } = DEFAULT_LIMITS
  return {
    ociVersion: '1.0.2',
    process: {
      user: { uid: NOBODY, gid: NOBODY },
      args: ['/guest', 'once'],
      cwd: '/',
      capabilities: {},
      noNewPrivileges: true,
    },
    root: { path: root, readonly: true },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755', 'size=65536k'] },
    ],
    linux: {
      namespaces: NAMESPACES.map((type) => ({ type })),
      resources: {
        devices: [{ allow: false, access: 'rwm' }],
        memory: { limit: memoryBytes },
        pids: { limit: pids },
        cpu: { quota: cpu * CPU_PERIOD_US, period: CPU_PERIOD_US },
      },
    },
  }
}
