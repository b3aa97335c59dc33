// When a request may reach a handler: once its body has arrived whole and was counted, on the raw stream, whatever the
// method, the route or the framing. A handler that ignores, half reads or swallows its body can therefore not be used
// to get more bytes in. Bodies are never inflated.
import { randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { PlatformError } from '../contract/errors.ts'
import { errorAnswer } from './error-response.ts'

export type Listener = (incoming: IncomingMessage, outgoing: ServerResponse) => void

export interface BodyLimits {
  readonly payloadBytesMax: number
  readonly manifestBytesMax: number
  /** Of all requests together, so that many large bodies at once cannot take the process's memory. */
  readonly bufferedBytesMax: number
}

/** What the raw request knows and the app wants. */
export interface Arrival {
  readonly body: Buffer<ArrayBuffer>
  readonly bodyMs: number
  /** Aborts when the client's connection closes. */
  readonly signal: AbortSignal
}

const HEADERS_MAX = 64
/** How much of a refused body is read and dropped, and how long, so that the client can read the refusal. */
const LINGER_BYTES = 16 * 1024 * 1024
const LINGER_MS = 500

/** A property and no WeakMap of requests, which every garbage collection would have to look through. */
const ARRIVAL = Symbol('arrival')
const EMPTY = Buffer.alloc(0)

type Arriving = IncomingMessage & { [ARRIVAL]?: Arrival }

export function arrivalOf(incoming: Arriving | undefined): Arrival | undefined {
  return incoming?.[ARRIVAL]
}

export function countBodies(limits: BodyLimits, handle: Listener): Listener {
  let buffered = 0
  return (incoming: Arriving, outgoing) => {
    if (incoming.rawHeaders.length > 2 * HEADERS_MAX) {
      refuse(incoming, outgoing, new PlatformError('INVALID_REQUEST', `more than ${HEADERS_MAX} headers`), 431)
      return
    }
    const max = bytesMaxOf(incoming, limits)
    if (Number(incoming.headers['content-length'] ?? 0) > max) {
      refuse(incoming, outgoing, tooLarge(max))
      return
    }
    if (incoming.headers.expect !== undefined) outgoing.writeContinue()
    const started = performance.now()
    const chunks: Buffer<ArrayBuffer>[] = []
    let bytes = 0
    // `close` comes once for every response, finished or not.
    outgoing.once('close', () => {
      buffered -= bytes
    })
    const onData = (chunk: Buffer<ArrayBuffer>) => {
      bytes += chunk.length
      buffered += chunk.length
      chunks.push(chunk)
      if (bytes <= max && buffered <= limits.bufferedBytesMax) return
      incoming.off('data', onData).off('end', onEnd)
      chunks.length = 0
      refuse(
        incoming,
        outgoing,
        bytes > max ? tooLarge(max) : new PlatformError('NO_CAPACITY', 'too many bodies at once'),
      )
    }
    const onEnd = () => {
      const body = chunks.length === 1 ? (chunks[0] ?? EMPTY) : Buffer.concat(chunks)
      incoming[ARRIVAL] = { body, bodyMs: performance.now() - started, signal: signalOf(incoming.socket) }
      handle(incoming, outgoing)
    }
    // A body cut off midway raises `error` and never `end`: nothing is to be answered, and nobody is there to read it.
    incoming
      .on('data', onData)
      .on('end', onEnd)
      .on('error', () => undefined)
  }
}

function bytesMaxOf(incoming: IncomingMessage, limits: BodyLimits): number {
  if (incoming.method === 'GET' || incoming.method === 'HEAD') return 0
  const path = (incoming.url ?? '').split('?', 1)[0] ?? ''
  return incoming.method === 'POST' && path.endsWith('/invoke') ? limits.payloadBytesMax : limits.manifestBytesMax
}

function tooLarge(max: number): PlatformError {
  const most = max === 0 ? 'this request takes no body' : `the body is longer than ${max} bytes`
  return new PlatformError('PAYLOAD_TOO_LARGE', most)
}

const signals = new WeakMap<Socket, AbortSignal>()

/** One for all requests of a connection: when it closes, those that were answered have nobody left who listens. */
function signalOf(socket: Socket): AbortSignal {
  const known = signals.get(socket)
  if (known !== undefined) return known
  const controller = new AbortController()
  if (socket.destroyed) controller.abort()
  else socket.once('close', () => controller.abort())
  signals.set(socket, controller.signal)
  return controller.signal
}

/**
 * Answers, and closes the connection. Closing with bytes unread would make the kernel send a reset, which can overtake
 * the answer: so the answer goes out whole, what comes is dropped for a while, and only then does the response end.
 */
function refuse(incoming: IncomingMessage, outgoing: ServerResponse, error: PlatformError, status?: number): void {
  const answer = errorAnswer(error, randomUUID())
  const body = JSON.stringify(answer.body)
  outgoing.writeHead(status ?? answer.status, {
    ...answer.headers,
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(body),
    Connection: 'close',
  })
  outgoing.write(body)
  let dropped = 0
  const end = () => {
    clearTimeout(timer)
    incoming.off('data', drop).off('end', end).off('close', end)
    outgoing.end()
  }
  const drop = (chunk: Buffer) => {
    dropped += chunk.length
    if (dropped > LINGER_BYTES) end()
  }
  const timer = setTimeout(end, LINGER_MS)
  incoming.on('data', drop).once('end', end).once('close', end)
}
