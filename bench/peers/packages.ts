// What each peer is installed from: the one list, of which notes quote the command and `peers --install` runs it.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { findProgram, peersFolder } from './place.ts'

export type Package =
  | { readonly from: 'apt'; readonly name: string; readonly program: string }
  | { readonly from: 'npm'; readonly name: string; readonly version: string }
  | { readonly from: 'go'; readonly name: string; readonly version: string; readonly program: string }

/** Debian's own version is what people run, and is said in the report; the others are pinned. */
export const PACKAGES = {
  unshare: { from: 'apt', name: 'util-linux', program: 'unshare' },
  bwrap: { from: 'apt', name: 'bubblewrap', program: 'bwrap' },
  runc: { from: 'apt', name: 'runc', program: 'runc' },
  crun: { from: 'apt', name: 'crun', program: 'crun' },
  'systemd-nspawn': { from: 'apt', name: 'systemd-container', program: 'systemd-nspawn' },
  firejail: { from: 'apt', name: 'firejail', program: 'firejail' },
  piscina: { from: 'npm', name: 'piscina', version: '5.3.2' },
  'isolated-vm': { from: 'npm', name: 'isolated-vm', version: '7.0.1' },
  workerd: { from: 'npm', name: 'workerd', version: '1.20261117.1' },
  'go-judge': { from: 'go', name: 'github.com/criyle/go-judge/cmd/go-judge', version: 'v1.9.5', program: 'go-judge' },
} as const satisfies Record<string, Package>

export type PackageName = keyof typeof PACKAGES

/** As a person would type it. */
export function installCommand(name: PackageName): string {
  const one: Package = PACKAGES[name]
  if (one.from === 'apt') return `apt-get install ${one.name}`
  if (one.from === 'npm') return `npm install --prefix ${peersFolder('node')} ${one.name}@${one.version}`
  return `GOBIN=${peersFolder('bin')} go install ${one.name}@${one.version}`
}

export function isInstalled(name: PackageName): boolean {
  const one: Package = PACKAGES[name]
  return one.from === 'npm' ? versionInFolder(one.name) === one.version : findProgram(one.program) !== undefined
}

/** Of a package that npm has put there. */
export function versionInFolder(name: string): string | undefined {
  try {
    const path = join(peersFolder('node'), 'node_modules', name, 'package.json')
    return (createRequire(import.meta.url)(path) as { version: string }).version
  } catch {
    return undefined
  }
}
