// How the app meets the network: Node's HTTP server with limits on what a client may hold open, how long, and how much.
import { randomUUID } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import type { Config } from '../contract/config.ts'
import { PlatformError } from '../contract/errors.ts'
import type { createApp } from './app.ts'
import { countBodies, type Listener } from './arrival.ts'
import { errorAnswer } from './error-response.ts'

/** Bodies of all requests together: room for forty payloads of the largest size. */
const BUFFERED_BYTES_MAX = 256 * 1024 * 1024
/** How long a client may take to read its answer. */
const ANSWER_MS = 30_000

type ListenConfig = Pick<
  Config,
  'host' | 'port' | 'requestMs' | 'connectionsMax' | 'payloadBytesMax' | 'manifestBytesMax'
>

export function createHttpServer(config: ListenConfig, app: ReturnType<typeof createApp>): Server {
  const answer = getRequestListener(app.fetch, {
    // The target or the Host of the request was none.
    errorHandler: () => {
      const { status, body } = errorAnswer(new PlatformError('INVALID_REQUEST', 'malformed request'), randomUUID())
      return Response.json(body, { status })
    },
  })
  const listener = countBodies({ ...config, bufferedBytesMax: BUFFERED_BYTES_MAX }, async (incoming, outgoing) => {
    await answer(incoming, outgoing)
    endSlowReader(outgoing)
  })
  const server = createServer(
    {
      maxHeaderSize: 8 * 1024,
      headersTimeout: Math.min(5_000, config.requestMs),
      requestTimeout: config.requestMs,
      keepAliveTimeout: 5_000,
      connectionsCheckingInterval: 1_000,
      insecureHTTPParser: false,
      requireHostHeader: true,
    },
    listener,
  )
  // Above what countBodies allows, so that it sees the excess and refuses it: Node itself drops it in silence.
  server.maxHeadersCount = 100
  server.maxRequestsPerSocket = 1_000
  server.maxConnections = config.connectionsMax
  // A body that is too long by its own word is refused before it is asked for.
  server.on('checkContinue', listener)
  return server
}

/** Resolves to the URL that answers. */
export async function listen(server: Server, { host, port }: Pick<Config, 'host' | 'port'>): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject).listen({ host, port }, resolve)
  try {
    await promise
  } catch (cause) {
    const isTaken = (cause as NodeJS.ErrnoException).code === 'EADDRINUSE'
    const message = isTaken ? `PORT: ${port} is taken; set PORT to another one` : `PORT: ${(cause as Error).message}`
    throw new PlatformError('INVALID_SETTING', message, { cause })
  }
  return `http://${host}:${(server.address() as AddressInfo).port}`
}

function endSlowReader(outgoing: Parameters<Listener>[1]): void {
  // Nearly every answer is with the kernel by now, and needs no timer.
  const isHandedOver = outgoing.writableEnded && outgoing.writableLength === 0
  if (isHandedOver || outgoing.destroyed) return
  const timer = setTimeout(() => outgoing.destroy(), ANSWER_MS)
  outgoing.once('close', () => clearTimeout(timer))
}
