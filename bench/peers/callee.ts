// What people would call from Node instead: a thing that is opened once and called any number of times.
import type { Bed } from '../bed.ts'
import type { Row } from '../scenario.ts'
import { installCommand, isInstalled, type PackageName } from './packages.ts'

export interface CalledPeer extends Required<Pick<Row, 'name' | 'isolated' | 'fresh'>> {
  /** Where it is no part of Node or of the project. */
  readonly package?: PackageName
  /** A call takes tens of milliseconds: few tell enough. */
  readonly isSlow?: boolean
  open(bed: Bed): Promise<Callee>
}

export interface Callee {
  call(payload: Buffer): Promise<Called>
  close(): Promise<void>
}

export interface Called {
  /** Only where it was measured nearer to the call than around `call`. */
  readonly ms?: number
  readonly answer: Uint8Array
}

export interface OpenCallee {
  readonly peer: CalledPeer
  readonly callee: Callee
}

/** Those that are there and give the right answer; of the others, what to do about it. */
export async function openCallees(peers: readonly CalledPeer[], bed: Bed, payload: Buffer) {
  const open: OpenCallee[] = []
  const notes: string[] = []
  for (const peer of peers) {
    if (peer.package !== undefined && !isInstalled(peer.package)) {
      notes.push(`${peer.name} is not installed: ${installCommand(peer.package)}`)
      continue
    }
    try {
      open.push({ peer, callee: await openChecked(peer, bed, payload) })
    } catch (error) {
      notes.push(`${peer.name} is left out: ${(error as Error).message}`)
    }
  }
  return { open, notes }
}

async function openChecked(peer: CalledPeer, bed: Bed, payload: Buffer): Promise<Callee> {
  const callee = await peer.open(bed)
  try {
    bed.checkBytes(peer.name, (await callee.call(payload)).answer, payload)
    return callee
  } catch (error) {
    await callee.close()
    throw error
  }
}
