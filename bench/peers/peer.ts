// A program that people would use instead, started once per call by a small spawner and spoken to directly.
import { type ChildProcess, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Bed } from '../bed.ts'
import { findProgram } from './place.ts'

export interface Peer {
  readonly name: string
  readonly isolated: string
  readonly fresh: string
  /** The program, looked up in PATH, that must be there. */
  readonly program: string
  readonly install: string
  /** It is slow, and one round of so many tells enough. */
  readonly every?: number
  /** Makes what it needs, and says what to execute for `guest once` to run in a sandbox of it. */
  command(program: string, bed: Bed): readonly string[] | Promise<readonly string[]>
}

/** Whether it takes part in that round, counted from 0; everybody does in the last one. */
export function isInRound({ every = 1 }: Peer, round: number, rounds: number): boolean {
  return (rounds - 1 - round) % every === 0
}

/** What `link` puts before a payload: version 1, INVOKE, length. The answer has RESULT in its place. */
const HEADER_BYTES = 16
const INVOKE = 1
/** How long an answer may be on its way when its process has ended. */
const ANSWER_MS_MAX = 1000

export class RunningPeer {
  readonly peer: Peer
  readonly #spawner: ChildProcess
  readonly #link: Socket
  readonly #control: Socket
  #errors = ''
  #answer: Buffer = Buffer.alloc(0)
  #onAnswer: ((answer: Buffer) => void) | undefined
  #onEnd: ((isGood: boolean) => void) | undefined

  constructor(peer: Peer, command: readonly string[], bed: Bed) {
    this.peer = peer
    const stdio = ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'] as const
    // An empty environment: nobody's loader settings are in the number. A group of its own, which Ctrl-C does not reach.
    this.#spawner = spawn(join(bed.root, 'spawner'), command, { stdio: [...stdio], env: {}, detached: true })
    this.#link = this.#spawner.stdio[3] as Socket
    this.#control = this.#spawner.stdio[4] as Socket
    this.#spawner.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-1000)
    })
    this.#link.on('data', (bytes: Buffer) => {
      this.#answer = this.#answer.length === 0 ? bytes : Buffer.concat([this.#answer, bytes])
      this.#onAnswer?.(this.#answer)
    })
    this.#control.on('data', (bytes: Buffer) => this.#onEnd?.(bytes[0] === 0))
    this.#spawner.once('exit', () => this.#onEnd?.(false))
  }

  /** From asking for the process until its whole answer is here, in milliseconds; resolves once it has ended too. */
  async call(payload: Buffer): Promise<{ ms: number; answer: Buffer }> {
    const frame = Buffer.concat([headerOf(payload), payload])
    const ended = new Promise<boolean>((resolve) => {
      this.#onEnd = resolve
    })
    let answeredAt = Number.NaN
    const answered = new Promise<void>((resolve) => {
      this.#onAnswer = ({ length }) => {
        if (length < frame.length) return
        answeredAt = performance.now()
        resolve()
      }
    })
    this.#answer = Buffer.alloc(0)
    const askedAt = performance.now()
    // The payload first: it waits in the socket, so that the process finds it there.
    this.#link.write(frame)
    this.#control.write(Buffer.alloc(1))
    const isGood = await ended
    if (!isGood) throw new Error(`it failed: ${this.#errors.trim() || 'it says nothing'}`)
    // What it wrote may still be on its way; one that ended well without an answer is not waited for longer.
    if (Number.isNaN(answeredAt)) await Promise.race([answered, delay(ANSWER_MS_MAX)])
    if (Number.isNaN(answeredAt)) throw new Error('it ended without an answer')
    return { ms: answeredAt - askedAt, answer: this.#answer.subarray(HEADER_BYTES) }
  }

  close(): void {
    this.#link.destroy()
    // The spawner ends when nobody can ask it any more.
    this.#control.destroy()
  }
}

/** The peers that are there and give the right answer; of the others, what to do about it. */
export async function openPeers(peers: readonly Peer[], bed: Bed, payload: Buffer) {
  const running: RunningPeer[] = []
  const notes: string[] = []
  for (const peer of peers) {
    const program = findProgram(peer.program)
    if (program === undefined) {
      notes.push(`${peer.name} is not installed: ${peer.install}`)
      continue
    }
    try {
      running.push(await openPeer(peer, { program, bed, payload }))
    } catch (error) {
      notes.push(`${peer.name} is left out: ${(error as Error).message}`)
    }
  }
  return { running, notes }
}

async function openPeer(peer: Peer, { program, bed, payload }: { program: string; bed: Bed; payload: Buffer }) {
  const candidate = new RunningPeer(peer, await peer.command(program, bed), bed)
  try {
    const { answer } = await candidate.call(payload)
    bed.checkBytes(peer.name, answer, payload)
    return candidate
  } catch (error) {
    candidate.close()
    throw error
  }
}

function headerOf(payload: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt8(1, 0)
  header.writeUInt8(INVOKE, 1)
  header.writeBigUInt64LE(BigInt(payload.length), 8)
  return header
}
