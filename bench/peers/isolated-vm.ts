// isolated-vm: V8 isolates inside a Node process, one for each call, or one with a fresh context for each. The boundary
// is V8's alone, and shares the process's fate. It must run in a Node without a startup snapshot, hence one of its own,
// which says how long a call took without the way there and back.
import { type ChildProcess, type ForkOptions, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Called, CalledPeer, Callee } from './callee.ts'
import { peersFolder } from './place.ts'

export type Fresh = 'isolate' | 'context'
export interface Question {
  readonly id: number
  readonly payload: Uint8Array
}
export type Answer = { readonly id: number } & (
  | { readonly ms: number; readonly answer: Uint8Array }
  | { readonly error: string }
)

export const freshIsolate = isolates('isolate', 'V8 isolate, with its heap limit')
export const freshContext = isolates('context', 'V8 context in an isolate of its own')

function isolates(fresh: Fresh, isolated: string): CalledPeer {
  return {
    name: `isolated-vm, a fresh ${fresh}`,
    isolated,
    fresh: fresh === 'isolate' ? 'isolate, JavaScript heap' : 'global object',
    package: 'isolated-vm',
    async open() {
      // In a group of its own, which Ctrl-C does not reach: it ends when this process does.
      const options: ForkOptions = { execArgv: ['--no-node-snapshot'], serialization: 'advanced', detached: true }
      return new Host(fork(join(import.meta.dirname, 'isolated-vm-host.ts'), [fresh, peersFolder('node')], options))
    },
  }
}

class Host implements Callee {
  readonly #child: ChildProcess
  readonly #asked = new Map<number, { resolve(called: Called): void; reject(error: Error): void }>()
  #calls = 0

  constructor(child: ChildProcess) {
    this.#child = child
    child.on('message', (answer: Answer) => this.#hear(answer))
    child.once('error', (error) => this.#lose(error))
    child.once('exit', (code, signal) => this.#lose(new Error(`its process ended with ${code ?? signal}`)))
  }

  call(payload: Buffer): Promise<Called> {
    this.#calls += 1
    const id = this.#calls
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject })
      this.#child.send({ id, payload } satisfies Question)
    })
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await ended
  }

  #hear(answer: Answer): void {
    const asked = this.#asked.get(answer.id)
    this.#asked.delete(answer.id)
    if ('error' in answer) asked?.reject(new Error(answer.error))
    else asked?.resolve(answer)
  }

  #lose(error: Error): void {
    for (const { reject } of this.#asked.values()) reject(error)
    this.#asked.clear()
  }
}
