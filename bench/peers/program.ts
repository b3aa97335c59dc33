// A program that a peer runs beside the benchmark: started, awaited until it says that it is ready, ended by its id. It
// ends with the benchmark however that ends, where setpriv(1) is there to see to it.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { findProgram } from './place.ts'

const READY_MS_MAX = 10_000
const END_MS_MAX = 2_000

export class Program {
  readonly #child: ChildProcess
  readonly #ended: Promise<unknown>
  #errors = ''

  /** Descriptor 3 is a pipe on which it may say where it listens, and stdout goes nowhere. */
  constructor(command: readonly string[], { cwd }: { cwd?: string } = {}) {
    const setpriv = findProgram('setpriv')
    const bound = setpriv === undefined ? command : [setpriv, '--pdeathsig', 'KILL', ...command]
    const [program = '', ...args] = bound
    const stdio = ['ignore', 'ignore', 'pipe', 'pipe'] as const
    // In a group of its own, which Ctrl-C does not reach: the scenario ends it.
    this.#child = spawn(program, args, { stdio: [...stdio], detached: true, ...(cwd && { cwd }) })
    this.#ended = once(this.#child, 'exit').catch((error: Error) => {
      this.#errors += error.message
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-1000)
    })
  }

  /** The first number after `port` that it says on descriptor 3. */
  port(): Promise<number> {
    const pipe = this.#child.stdio[3] as NodeJS.ReadableStream
    return this.ready(
      new Promise((resolve) => {
        let text = ''
        pipe.on('data', (bytes: Buffer) => {
          text += bytes.toString()
          const port = /port\D*(\d+)\D/.exec(text)?.[1]
          if (port !== undefined) resolve(Number(port))
        })
      }),
    )
  }

  /** What that resolves with, unless the program ends first or takes too long; then it is ended. */
  async ready<T>(what: Promise<T>): Promise<T> {
    const abort = new AbortController()
    const why = Promise.race([
      this.#ended.then(() => 'ended'),
      delay(READY_MS_MAX, 'was not ready in time', { signal: abort.signal }),
    ])
    try {
      return await Promise.race([
        what,
        why.then((text) => Promise.reject(new Error(`it ${text}: ${this.#errors.trim() || 'it says nothing'}`))),
      ])
    } catch (error) {
      await this.close()
      throw error
    } finally {
      why.catch(() => undefined)
      abort.abort()
    }
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    this.#child.kill('SIGTERM')
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), END_MS_MAX)
    await this.#ended
    clearTimeout(timer)
  }
}
