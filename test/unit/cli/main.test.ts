// What a person gets who types a command: words, exit code, and JSON where it was asked for.
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createApi } from '../../../cli/api.ts'
import { printable, table } from '../../../cli/output.ts'
import { lineForTerminal } from '../../../gateway/log.ts'

const MAIN = join(import.meta.dirname, '../../../cli/main.ts')

function mayfly(args: string[], env: Record<string, string> = {}) {
  const result = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    input: '',
    env: { ...process.env, ...env },
  })
  return { code: result.status, out: result.stdout, err: result.stderr }
}

describe('mayfly', () => {
  it('says what it can do, and shows an example of each command', () => {
    const { code, out } = mayfly(['--help'])
    expect(code).toBe(0)
    for (const name of [
      'serve',
      'doctor',
      'deploy',
      'invoke',
      'ls',
      'ps',
      'inspect',
      'rm',
      'image build',
      'image pack',
    ]) {
      expect(out).toContain(`  ${name}`)
    }
    expect(mayfly(['image', 'build', '--help']).out).toContain('Example: mayfly image build')
    expect(mayfly(['--version']).out).toMatch(/^\d+\.\d+\.\d+\n$/)
  })

  it.each([
    [['nonsense'], '"nonsense" is no command'],
    [['ls', '--nonsense'], '--nonsense'],
    [['invoke'], 'usage: mayfly invoke FUNCTION'],
    [['rm'], 'usage: mayfly rm FUNCTION'],
    [['invoke', 'echo', '--data', 'a', '--file', 'b'], 'exclude each other'],
  ])('%j is a wrong command line, exit code 2', (args, words) => {
    const { code, err } = mayfly(args)
    expect([code, err.trim().split('\n').length]).toEqual([2, 1])
    expect(err).toContain(words)
  })

  it('prints every setting, and refuses a wrong one by name', () => {
    const { out } = mayfly(['config', '--json'], { MAYFLY_SLOTS: '16' })
    const { settings } = JSON.parse(out) as { settings: { name: string; value: unknown; source: string }[] }
    expect(settings).toContainEqual(expect.objectContaining({ name: 'MAYFLY_SLOTS', value: 16, source: 'environment' }))
    expect(mayfly(['config'], { PORT: 'x' })).toMatchObject({
      code: 1,
      err: expect.stringContaining('INVALID_SETTING: PORT: '),
    })
    expect(mayfly(['config'], { HOST: '0.0.0.0' }).err).toContain('authentication')
  })

  it('says what to do where no server answers', () => {
    const { code, err } = mayfly(['ls'], { MAYFLY_URL: 'http://127.0.0.1:1' })
    expect([code, err]).toEqual([1, expect.stringContaining('start the server with npm start')])
  })
})

describe('the set-up', () => {
  it('needs nothing that it would have to install first', () => {
    const imports = readFileSync(join(MAIN, '../setup.mjs'), 'utf8').matchAll(/ from '([^']+)'/g)
    expect([...imports].map(([, name]) => name).filter((name) => !name?.startsWith('node:'))).toEqual([])
  })
})

describe('what others wrote', () => {
  it('cannot move the cursor of a terminal', () => {
    expect(printable('a\x1b[2Jb\u009bc\rd\ne')).toBe('a\ufffd[2Jb\ufffdc\ufffdd\ne')
    expect(table(['A', 'B'], [['x\x07', undefined]])).toContain('x\ufffd')
    const line = JSON.stringify({ level: 30, time: '2026-01-01T00:00:00.000Z', msg: 'm', name: 'a\nb\x1b' })
    expect(lineForTerminal(line)).toBe('00:00:00.000 info  m name="a\\nb\\u001b"\n')
  })
})

describe('the client', () => {
  const server = createServer((incoming, outgoing) => {
    const isPlain = incoming.url === '/plain'
    outgoing.writeHead(isPlain ? 500 : 404).end(isPlain ? 'oops' : '{"error":{"code":"NOT_FOUND","message":"gone"}}')
  })
  let url = ''
  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  afterAll(() => server.close())

  it('throws what the server refused, in its words', async () => {
    await expect(createApi(url).json('GET', '/x')).rejects.toMatchObject({ code: 'NOT_FOUND', message: 'gone' })
    await expect(createApi(url).json('GET', '/plain')).rejects.toThrow('the server answered 500')
  })
})
