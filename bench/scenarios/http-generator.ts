// The load generator: a process of its own that sends what it is told to over keep-alive connections and says how long
// each answer took. Every body is compared with what was sent. It does the same work whoever answers.
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import { Connection } from './http-connection.ts'
import type { Load, Order, Told } from './http-load.ts'

/** A timer of Node is late by up to that much; the rest of a wait is spent looking. */
const TIMER_MS = 2
const CELL = new Int32Array(new SharedArrayBuffer(4))

process.on('message', (order: Order) => {
  obey(order).then(
    (told) => process.send?.(told),
    (error: Error) => process.send?.({ error: error.message }),
  )
})
// Whoever gave orders is gone.
process.on('disconnect', () => process.exit())

let payloads = 0

/** Kept as it came and looked at when all is over, so that it costs the same for all. */
class Answers {
  readonly ms: number[] = []
  readonly heads: string[] = []
  readonly refusals: string[] = []
}

class Caller {
  readonly #connection: Connection
  readonly #request: Buffer
  readonly #payload: Buffer
  readonly #answers: Answers

  constructor({ url, path, payloadBytes }: Order, answers: Answers) {
    const { host } = new URL(url)
    const head = [`POST ${path} HTTP/1.1`, `Host: ${host}`, 'Content-Type: application/octet-stream']
    const text = [...head, `Content-Length: ${payloadBytes}`, '', ''].join('\r\n')
    this.#request = Buffer.concat([Buffer.from(text), Buffer.alloc(payloadBytes, 'mayfly ')])
    this.#payload = this.#request.subarray(text.length)
    this.#connection = new Connection(new URL(url))
    this.#answers = answers
  }

  open(): Promise<void> {
    return this.#connection.open()
  }

  close(): void {
    this.#connection.close()
  }

  /** `intendedAt` is when it should have been sent; now, where nothing was intended. */
  async call(intendedAt?: number): Promise<void> {
    if (!this.#connection.isOpen) await this.#connection.open()
    // Different each time, so that an answer to another call is a wrong one.
    this.#payload.writeUInt32LE(++payloads)
    const askedAt = intendedAt ?? performance.now()
    const { status, head, body } = await this.#connection.ask(this.#request)
    const ms = performance.now() - askedAt
    if (status !== 200) {
      this.#answers.refusals.push(`${status} ${/"code":"(\w+)"/.exec(body.toString('latin1'))?.[1] ?? ''}`.trim())
      return
    }
    if (Buffer.compare(body, this.#payload) !== 0) throw new Error('an answer is not what was sent')
    this.#answers.ms.push(ms)
    this.#answers.heads.push(head)
  }
}

async function obey(order: Order): Promise<Told> {
  const answers = new Answers()
  const callers = Array.from({ length: order.connections }, () => new Caller(order, answers))
  try {
    await Promise.all(callers.map((caller) => caller.open()))
    const startedAt = performance.now()
    await apply(order.load, callers, startedAt)
    const tookMs = performance.now() - startedAt
    const header = (name: string) =>
      answers.heads.map((head) => new RegExp(`\r\n${name}: (.*)`, 'i').exec(head)?.[1] ?? '')
    return {
      tookMs,
      ms: Float64Array.from(answers.ms),
      starts: header('x-mayfly-start'),
      sandboxes: header('x-mayfly-sandbox'),
      refusals: answers.refusals,
    }
  } finally {
    for (const caller of callers) caller.close()
  }
}

async function apply(load: Load, callers: readonly Caller[], startedAt: number): Promise<void> {
  if (load.kind === 'rate') return await arrive(callers, load, startedAt)
  const isOver = (calls: number) =>
    load.kind === 'calls' ? calls >= load.calls : performance.now() - startedAt >= load.ms
  const repeat = async (caller: Caller) => {
    for (let calls = 0; !isOver(calls); calls++) await caller.call()
  }
  await Promise.all(callers.map(repeat))
}

/** One call at each moment that is due, whatever became of those before; where no connection is free, it waits. */
async function arrive(
  callers: readonly Caller[],
  { perSecond, ms }: Extract<Load, { kind: 'rate' }>,
  startedAt: number,
): Promise<void> {
  const idle = [...callers]
  const late: number[] = []
  const underWay = new Set<Promise<void>>()
  const send = async (intendedAt: number): Promise<void> => {
    const caller = idle.pop()
    if (caller === undefined) return void late.push(intendedAt)
    await caller.call(intendedAt)
    idle.push(caller)
    const next = late.shift()
    if (next !== undefined) await send(next)
  }
  const total = Math.floor((perSecond * ms) / 1000)
  for (let call = 1; call <= total; call++) {
    const intendedAt = startedAt + (call * 1000) / perSecond
    await pauseUntil(intendedAt, () => underWay.size === 0)
    const sent = send(intendedAt).finally(() => underWay.delete(sent))
    underWay.add(sent)
  }
  await Promise.all(underWay)
}

/** To the microsecond: sleeps while nothing can arrive, and looks for arrivals where something may. */
async function pauseUntil(at: number, isQuiet: () => boolean): Promise<void> {
  for (let left = at - performance.now(); left > 0; left = at - performance.now()) {
    if (isQuiet()) Atomics.wait(CELL, 0, 0, left)
    else if (left > TIMER_MS) await delay(left - TIMER_MS)
    else await turn()
  }
}
