// What the HTTP API answers, route by route.
import { describe, expect, it } from 'vitest'
import type { Outcome } from '../../../contract/outcome.ts'
import { MANIFEST, setUp, USAGE } from './_setup.ts'

const codeOf = async (response: Response) => ((await response.json()) as { error: { code: string } }).error.code

describe('deploying', () => {
  it('answers 201 for a new function, 200 for the next version, and lists it', async () => {
    const { ask, deploy } = setUp()
    expect((await deploy()).status).toBe(201)
    expect((await deploy({ ...MANIFEST, env: { A: '1' } })).status).toBe(200)
    expect(await (await ask('/v1/functions')).json()).toMatchObject({ functions: [{ name: 'echo', contract: 'link' }] })
    expect(await (await ask('/v1/functions/echo')).json()).toMatchObject({
      name: 'echo',
      manifest: { env: { A: '1' } },
    })
  })

  it('reads YAML too, and takes the name from the path', async () => {
    const { ask, pool } = setUp()
    const response = await ask('/v1/functions/echo', { method: 'PUT', body: 'image: echo\ncontract: link\n' })
    expect(response.status).toBe(201)
    expect(pool.specs.get('echo')).toMatchObject({ argv: ['/echo'] })
  })

  it('executes a bare name from where it was found in the image', async () => {
    const { deploy, pool } = setUp()
    await deploy({ ...MANIFEST, command: ['python3', '-u'] })
    expect(pool.specs.get('echo')?.argv).toEqual(['/bin/python3', '-u'])
  })

  it('gives the same manifest over the same image the same version', async () => {
    const { deploy } = setUp()
    const versionOf = async () => ((await (await deploy()).json()) as { version: string }).version
    expect(await versionOf()).toBe(await versionOf())
  })

  it.each([
    ['what is no JSON', '{', 'application/json', 422],
    ['what is no YAML', 'a: b: c', 'application/yaml', 422],
    ['what is no text', new Uint8Array([0xff, 0xfe]), 'application/yaml', 422],
    ['what is no mapping', '[]', 'application/yaml', 422],
    ['another name than the path', JSON.stringify({ ...MANIFEST, name: 'other' }), 'application/json', 422],
    ['an unknown key', JSON.stringify({ ...MANIFEST, colour: 'red' }), 'application/json', 422],
    ['an unknown image', JSON.stringify({ ...MANIFEST, image: 'nope' }), 'application/json', 404],
    ['a command that does not start', JSON.stringify({ ...MANIFEST, command: ['/broken'] }), 'application/json', 502],
  ])('refuses %s, and keeps no record', async (_, body, type, status) => {
    const { ask, registry } = setUp()
    const init = { method: 'PUT', body, headers: { 'Content-Type': type } }
    expect((await ask('/v1/functions/echo', init)).status).toBe(status)
    expect(registry.list()).toEqual([])
  })

  it('keeps Object.prototype clean', async () => {
    const { ask } = setUp()
    const body = '{"__proto__": {"polluted": 1}, "image": "echo", "contract": "link"}'
    await ask('/v1/functions/echo', { method: 'PUT', body, headers: { 'Content-Type': 'application/json' } })
    expect(({} as { polluted?: number }).polluted).toBeUndefined()
  })

  it('removes a function, and only one that is there', async () => {
    const { ask, deploy, pool } = setUp()
    await deploy()
    expect((await ask('/v1/functions/echo', { method: 'DELETE' })).status).toBe(204)
    expect(pool.specs.size).toBe(0)
    expect(await codeOf(await ask('/v1/functions/echo', { method: 'DELETE' }))).toBe('FUNCTION_NOT_FOUND')
  })
})

describe('invoking', () => {
  it('gives back the bytes and says which sandbox, how long and how much', async () => {
    const { ask, deploy } = setUp()
    await deploy()
    const payload = new Uint8Array([0, 255, 10, 13])
    const response = await ask('/v1/functions/echo/invoke', { method: 'POST', body: payload })
    expect(new Uint8Array(await response.arrayBuffer())).toEqual(payload)
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'application/octet-stream',
      'content-security-policy': expect.stringContaining('sandbox'),
      'server-timing': expect.stringMatching(/^body;dur=.*, acquire;dur=0.001000, send;dur=0.002000, run;dur=0.003000/),
      'x-content-type-options': 'nosniff',
      'x-mayfly-outcome': 'ok',
      'x-mayfly-sandbox': 'i-1-1',
      'x-mayfly-start': 'pooled',
      'x-mayfly-usage':
        'wall-ns=1, cpu-ns=2, memory-peak-bytes=3, throttled-count=4, pids-denied-count=5, oom-kill-count=6',
    })
  })

  const endings: [Partial<Outcome> & { status: Outcome['status'] }, number, object][] = [
    [{ status: 'failed', message: 'no' }, 502, { code: 'FAILED', message: 'no' }],
    [{ status: 'exited', exitCode: 137 }, 502, { code: 'EXITED', exitCode: 137 }],
    [{ status: 'signaled', signal: 'SIGSEGV' }, 502, { code: 'SIGNALED', signal: 'SIGSEGV' }],
    [{ status: 'denied', syscall: 'ptrace' }, 502, { code: 'DENIED', syscall: 'ptrace' }],
    [
      { status: 'timed_out', clock: 'wall', limitMs: 9 },
      504,
      { code: 'TIMED_OUT', limit: { name: 'wallMs', value: 9 } },
    ],
    [{ status: 'timed_out', clock: 'cpu', limitMs: 9 }, 504, { code: 'TIMED_OUT', limit: { name: 'cpuMs', value: 9 } }],
    [{ status: 'out_of_memory', limitBytes: 9 }, 502, { limit: { name: 'memoryBytes', value: 9 } }],
    [{ status: 'limit_exceeded', limit: 'pids', max: 9 }, 502, { limit: { name: 'pids', value: 9 } }],
    [{ status: 'cancelled' }, 499, { code: 'CANCELLED' }],
  ]
  it.each(endings)('answers %o with %d', async (ending, status, error) => {
    const { ask, deploy, pool } = setUp()
    await deploy()
    pool.ending = { ...ending, logs: Buffer.from('why') }
    const response = await ask('/v1/functions/echo/invoke', { method: 'POST', headers: { 'X-Request-Id': 'r1' } })
    expect(response.status).toBe(status)
    expect(response.headers.get('x-mayfly-outcome')).toBe(ending.status)
    const body = { error: { ...error, usage: USAGE, logs: 'why', requestId: 'r1', message: expect.any(String) } }
    expect(await response.json()).toMatchObject(body)
  })

  it('gives the last 4 KiB of the logs where they are asked for', async () => {
    const { ask, deploy, pool } = setUp()
    await deploy()
    pool.ending = { status: 'ok', logs: Buffer.from(`${'x'.repeat(5000)}end`) }
    const init = { method: 'POST', headers: { 'X-Mayfly-Log-Type': 'Tail' } }
    const logs = Buffer.from(
      (await ask('/v1/functions/echo/invoke', init)).headers.get('x-mayfly-logs') ?? '',
      'base64',
    )
    expect(logs).toHaveLength(4096)
    expect(logs.toString()).toMatch(/xend$/)
    expect((await ask('/v1/functions/echo/invoke', { method: 'POST' })).headers.get('x-mayfly-logs')).toBeNull()
  })

  it.each([
    ['250', 250],
    ['250ms', 250],
    ['2s', 2000],
    ['900s', 30_000],
  ])('lets X-Timeout: %s only shorten, to %d ms', async (timeout, wallMs) => {
    const { ask, deploy, pool } = setUp()
    await deploy()
    await ask('/v1/functions/echo/invoke', { method: 'POST', headers: { 'X-Timeout': timeout } })
    expect(pool.calls[0]?.limits).toEqual({ wallMs })
  })

  it('passes X-Mayfly-Limits on', async () => {
    const { ask, deploy, pool } = setUp()
    await deploy()
    const headers = { 'X-Mayfly-Limits': 'cpu=0.5, memoryBytes=33554432,pids=16', 'X-Timeout': '10' }
    await ask('/v1/functions/echo/invoke', { method: 'POST', headers })
    expect(pool.calls[0]?.limits).toEqual({ cpu: 0.5, memoryBytes: 33_554_432, pids: 16, wallMs: 10 })
  })

  it.each([
    { 'X-Timeout': '0' },
    { 'X-Timeout': '-1' },
    { 'X-Timeout': '1h' },
    { 'X-Timeout': '1e3' },
    { 'X-Mayfly-Limits': 'memory=1' },
    { 'X-Mayfly-Limits': 'tmpBytes=1' },
    { 'X-Mayfly-Limits': 'pids=1.5' },
    { 'X-Mayfly-Limits': 'pids' },
    { 'X-Mayfly-Limits': '__proto__=1' },
  ])('refuses %o', async (headers) => {
    const { ask, deploy } = setUp()
    await deploy()
    const init = { method: 'POST', headers: headers as Record<string, string> }
    expect((await ask('/v1/functions/echo/invoke', init)).status).toBe(400)
  })

  it('refuses new calls while it drains', async () => {
    const { ask } = setUp({ phase: 'draining' })
    const response = await ask('/v1/functions/echo/invoke', { method: 'POST' })
    expect([response.status, response.headers.get('retry-after'), await codeOf(response)]).toEqual([
      503,
      '1',
      'DRAINING',
    ])
  })
})

describe('a request', () => {
  it.each([
    ['GET', '/nothing', 404, 'NOT_FOUND'],
    ['GET', '/v1/functions/none', 404, 'FUNCTION_NOT_FOUND'],
    ['POST', '/v1/functions/none/invoke', 404, 'FUNCTION_NOT_FOUND'],
    ['GET', '/v1/sandboxes/none', 404, 'SANDBOX_NOT_FOUND'],
    ['POST', '/v1/functions', 405, 'METHOD_NOT_ALLOWED'],
    ['GET', '/v1/functions/echo/invoke', 405, 'METHOD_NOT_ALLOWED'],
    ['DELETE', '/healthz', 405, 'METHOD_NOT_ALLOWED'],
    ['GET', '/v1/functions/..%2f..%2fetc', 400, 'INVALID_REQUEST'],
    ['PUT', '/v1/functions/%zz', 400, 'INVALID_REQUEST'],
    ['GET', '/v1/functions/UPPER', 400, 'INVALID_REQUEST'],
    ['GET', '/v1/functions/a%00b', 400, 'INVALID_REQUEST'],
  ])('%s %s is answered %d %s', async (method, path, status, code) => {
    const response = await setUp().ask(path, { method })
    expect([response.status, await codeOf(response)]).toEqual([status, code])
  })

  it('says which methods a path has', async () => {
    const response = await setUp().ask('/v1/functions/echo', { method: 'POST' })
    expect(response.headers.get('allow')).toBe('GET, PUT, DELETE')
  })

  it('keeps its id, or gets one', async () => {
    const { ask } = setUp()
    expect((await ask('/healthz', { headers: { 'X-Request-Id': 'mine-1' } })).headers.get('x-request-id')).toBe(
      'mine-1',
    )
    expect((await ask('/healthz', { headers: { 'X-Request-Id': 'a b' } })).headers.get('x-request-id')).toMatch(
      /^[\w-]{36}$/,
    )
  })

  it('of a page of another origin, or for another host, is refused', async () => {
    const { app, ask } = setUp()
    expect((await ask('/healthz', { headers: { Origin: 'http://evil.example' } })).status).toBe(400)
    expect((await app.request('http://evil.example/healthz')).status).toBe(400)
    expect((await app.request('http://localhost:8080/healthz')).status).toBe(200)
  })

  it('that meets a bug of ours learns nothing of it', async () => {
    const { ask, deploy, pool } = setUp()
    await deploy()
    pool.invoke = async () => {
      throw new Error('secret')
    }
    const response = await ask('/v1/functions/echo/invoke', { method: 'POST' })
    expect(response.status).toBe(500)
    expect(await response.json()).toMatchObject({ error: { code: 'INTERNAL', message: 'internal error' } })
  })
})

describe('readiness', () => {
  it.each([
    ['starting', 503],
    ['ready', 200],
    ['draining', 503],
  ] as const)('while %s is %d', async (phase, status) => {
    const { ask } = setUp({ phase })
    expect((await ask('/readyz')).status).toBe(status)
    expect((await ask('/healthz')).status).toBe(200)
  })
})
