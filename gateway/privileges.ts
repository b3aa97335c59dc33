// How the server stops being root once it holds what root was needed for: the port and a pool whose house stands.
// Whoever takes over this process is then nobody on the host.
import { closeSync, constants, fchownSync, lchownSync, openSync, readdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { PlatformError } from '../contract/errors.ts'

/** What this process writes in MAYFLY_HOME; `layers` and `run` belong to sandboxd and the pool. */
const OURS = { blobs: { sha256: {} }, cache: { examples: {} }, functions: {}, refs: {}, staging: {} }
interface Folders {
  readonly [name: string]: Folders
}

/** Does nothing for an ordinary user. Every module must be loaded by now: the project may lie where `id` cannot read. */
export function dropPrivileges(home: string, id: number): void {
  const { setgroups, setgid, setuid, geteuid } = process
  if (geteuid?.() !== 0 || !setgroups || !setgid || !setuid) return
  handOver(home, OURS, id)
  setgroups([])
  setgid(id)
  setuid(id)
  // setuid of root sets the saved id too; asking is cheaper than being wrong.
  if (process.getuid?.() !== id || process.getegid?.() !== id || canReturn()) {
    throw new PlatformError('HOST_UNFIT', `could not become user ${id}`)
  }
}

/** INVALID_SETTING where the state folder lies in one that `id` cannot pass, such as root's own home. */
export function refuseClosedHome(home: string, id: number): void {
  if (process.geteuid?.() !== 0) return
  for (let folder = dirname(home); ; folder = dirname(folder)) {
    const found = statSync(folder, { throwIfNoEntry: false })
    // What is not there yet will be made open to all.
    const isOpen = found === undefined || found.uid === id || (found.mode & constants.S_IXOTH) !== 0
    if (!isOpen) {
      const message = `MAYFLY_HOME: ${folder} is closed to user ${id}, as which the server runs; choose another folder`
      throw new PlatformError('INVALID_SETTING', message)
    }
    if (folder === '/') return
  }
}

/**
 * Gives a folder, the files right in it and the named folders below to `id`. By descriptor and never through a link:
 * an earlier life that was taken over could have left one, and we are still root.
 */
function handOver(path: string, below: Folders, id: number): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  try {
    fchownSync(fd, id, id)
    const folder = `/proc/self/fd/${fd}`
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const inner = below[entry.name]
      if (entry.isFile()) lchownSync(`${folder}/${entry.name}`, id, id)
      else if (entry.isDirectory() && inner !== undefined) handOver(`${folder}/${entry.name}`, inner, id)
    }
  } finally {
    closeSync(fd)
  }
}

function canReturn(): boolean {
  try {
    process.setuid?.(0)
    return true
  } catch {
    return false
  }
}
