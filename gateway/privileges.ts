// How the server stops being root once it holds what root was needed for: the port and a pool whose house stands.
// Whoever takes over this process is then nobody on the host.
import { closeSync, constants, fchownSync, lchownSync, openSync, readdirSync } from 'node:fs'
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
