// One keep-alive connection that asks and awaits, for the load generator: as little work per request as Node allows,
// since whoever generates load takes processors from what is measured. Knows answers with a Content-Length and no other,
// which is what both sides give; anything else is an error and never a guess.
import { connect, type Socket } from 'node:net'

export interface Answer {
  readonly status: number
  /** Status line and headers. */
  readonly head: string
  readonly body: Buffer
}

const HEAD_END = Buffer.from('\r\n\r\n')
const EMPTY = Buffer.alloc(0)

export class Connection {
  readonly #url: URL
  #socket: Socket | undefined
  #received: Buffer = EMPTY
  #bodyAt = -1
  #answerBytes = 0
  #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | undefined

  constructor(url: URL) {
    this.#url = url
  }

  /** The server may close after any answer. */
  get isOpen(): boolean {
    return this.#socket !== undefined
  }

  async open(): Promise<void> {
    const socket = connect(Number(this.#url.port), this.#url.hostname)
    socket.setNoDelay(true)
    socket.on('data', (bytes) => this.#hear(bytes))
    socket.on('error', (error) => this.#lose(error))
    socket.on('close', () => {
      if (this.#socket === socket) this.#lose(new Error('the server closed the connection before it answered'))
    })
    await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    this.#socket = socket
  }

  /** `request` is head and body in one, and must stay as it is until the answer is here. */
  ask(request: Buffer): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#socket?.write(request)
    })
  }

  close(): void {
    const socket = this.#socket
    this.#socket = undefined
    socket?.destroy()
  }

  #hear(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes])
    if (this.#bodyAt < 0) {
      const end = this.#received.indexOf(HEAD_END)
      if (end < 0) return
      this.#bodyAt = end + HEAD_END.length
      const length = /\r\ncontent-length: (\d+)/i.exec(this.#received.toString('latin1', 0, end))?.[1]
      if (length === undefined) return this.#lose(new Error('an answer has no Content-Length'))
      this.#answerBytes = this.#bodyAt + Number(length)
    }
    if (this.#received.length < this.#answerBytes) return
    if (this.#received.length > this.#answerBytes) return this.#lose(new Error('an answer is longer than it says'))
    const head = this.#received.toString('latin1', 0, this.#bodyAt)
    const body = this.#received.subarray(this.#bodyAt)
    const waiting = this.#waiting
    this.#received = EMPTY
    this.#bodyAt = -1
    this.#waiting = undefined
    if (/\r\nconnection: close\r\n/i.test(head)) this.close()
    waiting?.resolve({ status: Number(head.slice(9, 12)), head, body })
  }

  #lose(error: Error): void {
    this.close()
    this.#waiting?.reject(error)
    this.#waiting = undefined
  }
}
