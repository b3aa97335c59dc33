// How a file of the store reaches the disk: written to a temporary name, flushed, renamed, and its folder flushed, so
// that a crash at any moment leaves the old file or the new one, whole. This file does not know what a blob is.
import { randomBytes } from 'node:crypto'
import * as sync from 'node:fs'
import { mkdtemp, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/** Temporary files live here and nowhere else: one folder to sweep, on the same filesystem as their destination. */
const STAGING = 'staging'

/** The folder of all state, and whom what is written there must belong to when that is not the writing process. */
export interface Home {
  readonly path: string
  /** Set when root writes into the service's folder: the server gives up root and must still be able to replace files. */
  readonly owner: { readonly uid: number; readonly gid: number } | undefined
}

export function openHome(path: string): Home {
  sync.mkdirSync(path, { recursive: true, mode: 0o755 })
  const { uid, gid } = sync.statSync(path)
  const isForeign = process.geteuid?.() === 0 && uid !== 0
  const home = { path, owner: isForeign ? { uid, gid } : undefined }
  ensureFolder(home, STAGING)
  sweepStaging(home)
  return home
}

/** Makes `relative` below the home. A symbolic link in its place is refused: root would write where it points. */
export function ensureFolder(home: Home, relative: string): string {
  let path = home.path
  for (const part of relative.split('/')) {
    path = join(path, part)
    const isNew = sync.lstatSync(path, { throwIfNoEntry: false }) === undefined
    if (isNew) sync.mkdirSync(path, { recursive: true, mode: 0o755 })
    if (!sync.lstatSync(path).isDirectory()) throw new Error(`${path} is not a folder`)
    if (isNew && home.owner) sync.lchownSync(path, home.owner.uid, home.owner.gid)
  }
  return path
}

/** A folder to work in, swept at the next start should its maker not remove it. */
export async function createStagingFolder(home: Home): Promise<string> {
  return await mkdtemp(stagedName(home))
}

/** Writes a whole file. A `target` that depends on the content is a function, asked once all is written. */
export async function writeDurably(
  home: Home,
  target: string | (() => string),
  content: string | Uint8Array | AsyncIterable<Uint8Array>,
): Promise<void> {
  const staged = stagedName(home) + randomBytes(8).toString('hex')
  const file = await open(staged, 'wx', 0o644)
  try {
    // On a handle this goes on where the last one ended, and does not return before all is written.
    await file.writeFile(content)
    // By descriptor, so that it is this file whatever the path has become.
    if (home.owner) await file.chown(home.owner.uid, home.owner.gid)
    await file.sync()
    const path = typeof target === 'string' ? target : target()
    await rename(staged, path)
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(staged, { force: true })
    throw error
  } finally {
    await file.close()
  }
}

/** A rename or removal is on disk only when the folder that holds the name is. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, sync.constants.O_RDONLY | sync.constants.O_DIRECTORY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Who is at work is part of the name, for the sweep to know what is left over. */
function stagedName(home: Home): string {
  return join(home.path, STAGING, `${process.pid}-${startTimeOf('self')}-`)
}

/** Removes what writers that are gone left behind. A file of a process that still runs is being written. */
function sweepStaging(home: Home): void {
  const folder = join(home.path, STAGING)
  for (const name of sync.readdirSync(folder)) {
    const [pid, startTime] = name.split('-')
    if (/^\d+$/.test(pid ?? '') && startTimeOf(pid as string) === startTime) continue
    sync.rmSync(join(folder, name), { force: true, recursive: true })
  }
}

/** A process id comes again; with its start time (field 22 of proc_pid_stat(5), in ticks since boot) it does not. */
function startTimeOf(pid: string): string | undefined {
  try {
    const stat = sync.readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The name of the process, in parentheses, may hold spaces and parentheses itself.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch {
    return undefined
  }
}
