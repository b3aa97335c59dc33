// Contenders that are a `stdio` program and nothing of ours: children of Node's that wait for their stdin, and the same
// program started by a small C program.
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { type Bed, PAYLOAD_BYTES } from '../bed.ts'
import { Contender } from './lease-contender.ts'

type Child = ChildProcessByStdio<Writable, Readable, null>

export class PlainChildren extends Contender {
  readonly #bed: Bed
  readonly #program: string
  readonly #ready: Child[] = []
  readonly #count: number

  constructor(bed: Bed, count: number) {
    super({ name: 'child_process, exec’d ahead', isolated: '-', fresh: 'process' })
    this.#bed = bed
    this.#program = join(bed.root, 'stdio')
    this.#count = count
  }

  async call(payload: Buffer): Promise<number> {
    const child = this.#ready.pop()
    if (child === undefined) throw new Error('a call is to find a child that waits')
    const chunks: Buffer[] = []
    const askedAt = performance.now()
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
    child.stdout.on('data', (bytes: Buffer) => chunks.push(bytes))
    child.stdin.end(payload)
    const code = await ended
    const ms = performance.now() - askedAt
    if (code !== 0) throw new Error(`${this.name} ended with ${code}`)
    this.#bed.checkBytes(this.name, Buffer.concat(chunks), payload)
    return ms
  }

  async rest(): Promise<void> {
    while (this.#ready.length < this.#count) {
      const child = spawn(this.#program, [], { stdio: ['pipe', 'pipe', 'ignore'], env: {} })
      // Node says so once it is executed.
      await new Promise<void>((resolve, reject) => {
        child.once('spawn', resolve)
        child.once('error', reject)
      })
      this.#ready.push(child)
    }
  }

  close(): void {
    for (const child of this.#ready.splice(0)) child.stdin.end()
  }
}

/** What starter.c answers with: nanoseconds, then what the program wrote. */
const ANSWER_BYTES = 8 + PAYLOAD_BYTES

export class Starter extends Contender {
  readonly #bed: Bed
  readonly #socket: Socket
  readonly #lost: Promise<never>

  constructor(bed: Bed, socket: Socket, lost: Promise<never>) {
    super({ name: 'vfork and exec, in C', isolated: '-', fresh: 'process' })
    this.#bed = bed
    this.#socket = socket
    this.#lost = lost
    // Only a call has use for it.
    lost.catch(() => {})
  }

  async call(payload: Buffer): Promise<number> {
    this.#socket.write(payload)
    const answer = await Promise.race([this.#answer(), this.#lost])
    this.#bed.checkBytes(this.name, answer.subarray(8), payload)
    return Number(answer.readBigUInt64LE(0)) / 1e6
  }

  #answer(): Promise<Buffer> {
    let answer: Buffer = Buffer.alloc(0)
    return new Promise((resolve) => {
      const hear = (bytes: Buffer) => {
        answer = Buffer.concat([answer, bytes])
        if (answer.length < ANSWER_BYTES) return
        this.#socket.off('data', hear)
        resolve(answer)
      }
      this.#socket.on('data', hear)
    })
  }

  async rest(): Promise<void> {}

  /** The starter ends when nobody can ask it any more. */
  close(): void {
    this.#socket.destroy()
  }
}

export function openStarter(bed: Bed): Starter {
  const child = spawn(join(bed.root, 'starter'), [join(bed.root, 'stdio')], {
    stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
    env: {},
  })
  const lost = new Promise<never>((_, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => reject(new Error(`the starter ended with ${signal ?? code}`)))
  })
  return new Starter(bed, child.stdio[3] as Socket, lost)
}
