// Where peers keep what they need, and how their programs are found.
import { accessSync, constants } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { delimiter, join } from 'node:path'
import { readConfig } from '../../contract/config.ts'

/** A folder of that name, beside the server's state and the bench's own. */
export function peersFolder(name: string): string {
  return join(`${readConfig().home}-bench`, 'peers', name)
}

export async function makePeersFolder(name: string): Promise<string> {
  const folder = peersFolder(name)
  await mkdir(folder, { recursive: true })
  return folder
}

/** Where an executable program is: ours first, then PATH, then where root's programs are, which few have in PATH. */
export function findProgram(name: string): string | undefined {
  if (name.startsWith('/')) return name
  const path = (process.env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== '')
  const folders = [peersFolder('bin'), ...path, '/usr/sbin', '/sbin']
  return folders.map((folder) => join(folder, name)).find(isExecutable)
}

/** Packages that are heavy or native are not the project's, so they are looked for where `--install` puts them. */
export const requirePeer = createRequire(join(peersFolder('node'), 'package.json'))

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
