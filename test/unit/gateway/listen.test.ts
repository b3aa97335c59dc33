// What a client may do to the HTTP server before any handler sees it: raw bytes over a socket of its own.
import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { readConfig } from '../../../contract/config.ts'
import { createHttpServer, listen } from '../../../gateway/listen.ts'
import { setUp } from './_setup.ts'

const closing: (() => void)[] = []
afterEach(() => {
  for (const close of closing.splice(0)) close()
})

async function start(env: Record<string, string> = {}) {
  const parts = setUp()
  await parts.deploy()
  const config = readConfig({ PORT: '0', MAYFLY_PAYLOAD_BYTES: '1000', MAYFLY_MANIFEST_BYTES: '500', ...env })
  const server = createHttpServer(config, parts.app)
  closing.push(() => server.close().closeAllConnections())
  const url = await listen(server, config)
  return { ...parts, url, server, port: (server.address() as AddressInfo).port }
}

/** Sends, and reads until the server closes or has said all it will say. */
async function exchange(port: number, ...parts: string[]): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  const { promise, resolve } = Promise.withResolvers<void>()
  let answer = ''
  let silence = setTimeout(resolve, 2_000)
  socket.on('data', (chunk) => {
    answer += chunk.toString('latin1')
    clearTimeout(silence)
    silence = setTimeout(resolve, 50)
  })
  socket.on('error', () => undefined).once('close', resolve)
  for (const part of parts) socket.write(part)
  await promise
  clearTimeout(silence)
  socket.destroy()
  return answer
}

const statusOf = (answer: string) => Number(answer.split(' ')[1])
const INVOKE = '/v1/functions/echo/invoke'
const head = (line: string, ...headers: string[]) => `${[line, 'Host: 127.0.0.1', ...headers].join('\r\n')}\r\n\r\n`

describe('a body', () => {
  it('reaches the function whole, however it is framed', async () => {
    const { port } = await start()
    const plain = await exchange(
      port,
      head(`POST ${INVOKE} HTTP/1.1`, 'Content-Length: 5', 'Connection: close'),
      'hello',
    )
    expect([statusOf(plain), plain.endsWith('hello')]).toEqual([200, true])
    const chunked = head(`POST ${INVOKE} HTTP/1.1`, 'Transfer-Encoding: chunked', 'Connection: close')
    const answer = await exchange(port, chunked, '2\r\nhe\r\n', '3\r\nllo\r\n0\r\n\r\n')
    expect([statusOf(answer), answer.endsWith('hello')]).toEqual([200, true])
  })

  it.each([
    ['POST', INVOKE, 1001],
    ['PUT', '/v1/functions/echo', 501],
    ['DELETE', '/v1/functions/echo', 501],
    ['POST', '/nothing', 501],
    ['GET', '/healthz', 1],
    ['GET', '/nothing', 1],
  ])('of a %s %s of %d bytes is refused, by its word and by its count', async (method, path, bytes) => {
    const { port, pool } = await start()
    const declared = await exchange(
      port,
      head(`${method} ${path} HTTP/1.1`, `Content-Length: ${bytes}`),
      'x'.repeat(bytes),
    )
    expect(statusOf(declared)).toBe(413)
    const chunk = `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n`
    const counted = await exchange(port, head(`${method} ${path} HTTP/1.1`, 'Transfer-Encoding: chunked'), chunk)
    expect(statusOf(counted)).toBe(413)
    expect(pool.calls).toEqual([])
  })

  it('that never ends takes no memory', async () => {
    const { port } = await start()
    const before = process.memoryUsage.rss()
    const chunk = `100000\r\n${'x'.repeat(0x100000)}\r\n`
    const parts = [head(`POST ${INVOKE} HTTP/1.1`, 'Transfer-Encoding: chunked'), ...Array<string>(64).fill(chunk)]
    expect(statusOf(await exchange(port, ...parts))).toBe(413)
    // The client's own copy of what it sends is in this process too.
    expect(process.memoryUsage.rss() - before).toBeLessThan(256 * 1024 * 1024)
  })

  it('that is too long by its word is refused before it is asked for', async () => {
    const { port } = await start()
    const answer = await exchange(port, head(`POST ${INVOKE} HTTP/1.1`, 'Content-Length: 5000', 'Expect: 100-continue'))
    expect(answer).not.toContain('100 Continue')
    expect(statusOf(answer)).toBe(413)
  })

  it('is never inflated', async () => {
    const { url } = await start()
    const response = await fetch(`${url}${INVOKE}`, {
      method: 'POST',
      body: 'zip',
      headers: { 'Content-Encoding': 'gzip' },
    })
    expect(await response.text()).toBe('zip')
  })
})

describe('a malformed request', () => {
  it.each([
    ['both framings', head(`POST ${INVOKE} HTTP/1.1`, 'Content-Length: 3', 'Transfer-Encoding: chunked'), 400],
    ['two lengths', head(`POST ${INVOKE} HTTP/1.1`, 'Content-Length: 3', 'Content-Length: 4'), 400],
    ['an unknown framing', head(`POST ${INVOKE} HTTP/1.1`, 'Transfer-Encoding: xchunked'), 400],
    ['a space before the colon', head('GET /healthz HTTP/1.1', 'X : 1'), 400],
    ['no Host', 'GET /healthz HTTP/1.1\r\n\r\n', 400],
    ['a Host that is none', 'GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n', 400],
    ['a Host with a path', 'GET /healthz HTTP/1.1\r\nHost: a/b@c\r\n\r\n', 400],
    ['a folded header', head('GET /healthz HTTP/1.1', 'X: 1', ' 2'), 400],
    ['an unknown method', head('BREW /healthz HTTP/1.1'), 400],
    ['TRACE', head('TRACE /healthz HTTP/1.1'), 405],
    ['headers too long', head('GET /healthz HTTP/1.1', `X: ${'x'.repeat(9000)}`), 431],
    ['too many headers', head('GET /healthz HTTP/1.1', ...Array.from({ length: 70 }, (_, n) => `X${n}: 1`)), 431],
  ])('with %s is refused, and the server lives', async (_, text, status) => {
    const { port, url } = await start()
    const answer = await exchange(port, text)
    expect(statusOf(answer)).toBe(status)
    expect((await fetch(`${url}/healthz`)).status).toBe(200)
  })

  it('that asks for a tunnel or another protocol gets none', async () => {
    const { port, url } = await start()
    expect(await exchange(port, head('CONNECT 127.0.0.1:1 HTTP/1.1'))).not.toMatch(/ 200 /)
    expect(
      await exchange(port, head('GET /healthz HTTP/1.1', 'Upgrade: websocket', 'Connection: Upgrade')),
    ).not.toMatch(/ 101 /)
    expect((await fetch(`${url}/healthz`)).status).toBe(200)
  })
})

describe('a slow client', () => {
  it.each([
    ['its headers', 'GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n'],
    ['its body', head(`POST ${INVOKE} HTTP/1.1`, 'Content-Length: 5')],
  ])('that never ends %s is cut off', async (_, text) => {
    const { port, pool } = await start({ MAYFLY_REQUEST_MS: '1000' })
    const socket = connect(port, '127.0.0.1')
    let answer = ''
    socket.on('data', (chunk) => {
      answer += chunk
    })
    socket.write(text)
    await once(socket, 'close')
    expect([statusOf(answer), pool.calls]).toEqual([408, []])
  })
})

describe('a client that goes away', () => {
  it('cancels its invocation', async () => {
    const { port, pool } = await start()
    const aborted = new Promise<void>((resolve) => {
      pool.invoke = (_name, _payload, options) =>
        new Promise(() => options?.signal?.addEventListener('abort', () => resolve()))
    })
    const socket = connect(port, '127.0.0.1')
    socket.write(head(`POST ${INVOKE} HTTP/1.1`, 'Content-Length: 0'))
    await delay(100)
    socket.destroy()
    await aborted
  })
})

describe('a port', () => {
  it('that is taken is refused in words', async () => {
    const { port, app } = await start()
    const config = readConfig({ PORT: String(port) })
    await expect(listen(createHttpServer(config, app), config)).rejects.toThrow(`PORT: ${port} is taken`)
  })
})
