// What a newcomer and a client see of the whole, from outside: the real server, its sandboxes, and the command line.
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { privileged } from '../_setup.ts'
import { abandon, abandonAll, ROOT, type Started, startServer, temporaryHome, until } from './_server.ts'

const bytesOf = async (response: Response) => Buffer.from(await response.arrayBuffer())
const header = (response: Response, name: string) => response.headers.get(`x-mayfly-${name}`)

/** The host's ids of a process: real, effective, saved, filesystem. */
const uidsOf = (pid: number | string) =>
  /^Uid:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]?.split('\t') ?? []

/** The processes of a server's house, which are nobody's children once the launcher has ended. */
async function processesOf(server: Started): Promise<{ pid: number; command: string; uids: readonly string[] }[]> {
  const { instance } = (await (await fetch(`${server.url}/v1/pool`)).json()) as { instance: string }
  return readdirSync('/proc').flatMap((pid) => {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')
      const isOurs = command.includes(instance) || readFileSync(`/proc/${pid}/cgroup`, 'latin1').includes(instance)
      return isOurs ? [{ pid: Number(pid), command, uids: uidsOf(pid) }] : []
    } catch {
      // No process, or one that ended while we looked.
      return []
    }
  })
}

async function leasedOf(server: Started, name: string): Promise<number> {
  const stats = (await (await fetch(`${server.url}/v1/pool`)).json()) as {
    functions: { name: string; leased: number }[]
  }
  return stats.functions.find((one) => one.name === name)?.leased ?? 0
}

privileged('over HTTP', () => {
  let server: Started
  beforeAll(async () => {
    server = await startServer()
  })
  afterAll(abandonAll)

  describe('the server of a newcomer', () => {
    it('has the examples, and they answer', async () => {
      expect([...server.functions].sort()).toEqual(['echo', 'python', 'shell', 'wordcount'])
      expect(await (await server.invoke('echo', 'hello')).text()).toBe('hello')
      expect(await (await server.invoke('shell', 'echo $((6 * 7))')).text()).toBe('42\n')
      expect((await server.invoke('wordcount', 'to be or not to be')).status).toBe(200)
      expect((await server.invoke('python', '[1, 2, 3, 10]')).status).toBe(200)
    })

    it('is ready', async () => {
      expect((await fetch(`${server.url}/readyz`)).status).toBe(200)
    })

    it('is not root, and nothing it started is', async () => {
      const started = await processesOf(server)
      expect(started.some(({ command }) => command.startsWith('mayfly-sandboxd'))).toBe(true)
      // Besides sandboxd an init and a function in each sandbox that is ready or in the making.
      expect(started.length).toBeGreaterThan(8)
      for (const uids of [uidsOf(server.pid), ...started.map((one) => one.uids)]) expect(uids).not.toContain('0')
    })
  })

  describe('an invocation', () => {
    it.each([0, 1, 131_072, 131_073, 6 * 1024 * 1024])('carries %d bytes there and back', async (bytes) => {
      const payload = Buffer.alloc(
        bytes,
        Uint8Array.from({ length: 251 }, (_, index) => index),
      )
      const response = await server.invoke('echo', payload)
      expect(response.status).toBe(200)
      expect((await bytesOf(response)).equals(payload)).toBe(true)
    })

    it('of more than 6 MiB is refused', async () => {
      expect((await server.invoke('echo', Buffer.alloc(6 * 1024 * 1024 + 1))).status).toBe(413)
    })

    it('gets a sandbox of its own', async () => {
      const seen = new Set<string | null>()
      const client = async () => {
        for (let call = 0; call < 50; call++) {
          const text = `call ${call}`
          const response = await server.invoke('echo', text)
          expect(await response.text()).toBe(text)
          seen.add(header(response, 'sandbox'))
        }
      }
      await Promise.all(Array.from({ length: 8 }, client))
      expect(seen.size).toBe(400)
    })

    it('finds nothing of the one before', async () => {
      expect((await server.invoke('shell', 'echo secret > /tmp/left && echo secret > /dev/shm/left')).status).toBe(200)
      expect(await (await server.invoke('shell', 'ls /tmp /dev/shm | grep left | wc -l')).text()).toBe('0\n')
    })

    it.each([
      ['exit 137', {}, 502, 'exited', { exitCode: 137 }],
      ['kill -9 $$', {}, 502, 'signaled', { signal: 'SIGKILL' }],
      ['sleep 60', { 'X-Timeout': '200ms' }, 504, 'timed_out', { limit: { name: 'wallMs', value: 200 } }],
    ])('of a script %s is told apart', async (script, headers, status, outcome, error) => {
      const response = await server.invoke('shell', script, headers)
      expect([response.status, header(response, 'outcome')]).toEqual([status, outcome])
      expect(await response.json()).toMatchObject({ error: { ...error, usage: { wallNs: expect.any(Number) } } })
    })

    it('gives its logs to who asks', async () => {
      const response = await server.invoke('shell', 'echo out; echo err >&2', { 'X-Mayfly-Log-Type': 'Tail' })
      expect(await response.text()).toBe('out\n')
      expect(Buffer.from(header(response, 'logs') ?? '', 'base64').toString()).toBe('err\n')
    })

    it('cannot raise a limit', async () => {
      expect((await server.invoke('echo', '', { 'X-Mayfly-Limits': 'pids=4000' })).status).toBe(400)
    })

    it('ends when its client goes away, and its slot is free again', async () => {
      const gone = new AbortController()
      const calls = Array.from({ length: 4 }, () =>
        fetch(`${server.url}/v1/functions/shell/invoke`, { method: 'POST', body: 'sleep 25', signal: gone.signal }),
      )
      await until(async () => (await leasedOf(server, 'shell')) === 4, 'four leases')
      gone.abort()
      await Promise.allSettled(calls)
      await until(async () => (await leasedOf(server, 'shell')) === 0, 'no lease')
    })
  })

  describe('a deploy', () => {
    const deploy = async (name: string, manifest: object) =>
      fetch(`${server.url}/v1/functions/${name}`, {
        method: 'PUT',
        body: JSON.stringify(manifest),
        headers: { 'Content-Type': 'application/json' },
      })

    it.each([
      ['a command that the image lacks', { image: 'shell', contract: 'stdio', command: ['/no/such'] }, 422],
      ['a command that is a folder', { image: 'shell', contract: 'stdio', command: ['/bin'] }, 422],
      ['a working directory that the image lacks', { image: 'shell', contract: 'stdio', cwd: '/none' }, 422],
      ['an unknown image', { image: 'none', contract: 'stdio' }, 404],
      ['a program that ends before its first call', { image: 'shell', contract: 'stdio', command: ['/bin/true'] }, 502],
    ])('of %s is refused in words, and lists nothing', async (_, manifest, status) => {
      const response = await deploy('bad', manifest)
      const { error } = (await response.json()) as { error: { message: string } }
      expect([response.status, error.message.length > 10]).toEqual([status, true])
      expect((await fetch(`${server.url}/v1/functions/bad`)).status).toBe(404)
    })

    it('replaces the version that runs', async () => {
      for (const answer of ['one', 'two']) {
        await deploy('version', { image: 'shell', contract: 'stdio', start: 'lazy', command: ['/bin/echo', answer] })
        expect(await (await server.invoke('version')).text()).toBe(`${answer}\n`)
      }
      expect((await fetch(`${server.url}/v1/functions/version`, { method: 'DELETE' })).status).toBe(204)
      expect((await server.invoke('version')).status).toBe(404)
    })
  })

  describe('the command line', () => {
    it('deploys a folder, calls its function, shows it and takes it away', () => {
      const folder = join(server.home, 'my function')
      mkdirSync(folder)
      writeFileSync(join(folder, 'hello.txt'), 'hello\n')
      writeFileSync(join(folder, 'mayfly.yaml'), 'name: mine\nimage: shell\ncontract: stdio\nenv: { GREETING: hi }\n')
      expect(server.mayfly(['deploy', folder])).toMatchObject({
        code: 0,
        out: expect.stringMatching(/^deployed mine /),
      })
      expect(server.mayfly(['invoke', 'mine'], 'echo $GREETING')).toMatchObject({ code: 0, out: 'hi\n' })
      expect(server.mayfly(['ls']).out).toMatch(/^mine +stdio/m)
      expect(server.mayfly(['inspect', 'mine']).out).toContain('GREETING: hi')
      const sandbox = /^(\S+) +mine +ready/m.exec(server.mayfly(['ps', 'mine']).out)?.[1] ?? ''
      expect(JSON.parse(server.mayfly(['inspect', sandbox, '--json']).out)).toMatchObject({ id: sandbox })
      expect(server.mayfly(['rm', 'mine'])).toMatchObject({ code: 0, out: 'removed mine\n' })
      expect(server.mayfly(['invoke', 'mine'])).toMatchObject({
        code: 1,
        err: expect.stringContaining('FUNCTION_NOT_FOUND'),
      })
    })

    it('shows why a function failed', () => {
      const { code, out, err } = server.mayfly(['invoke', 'shell', '--verbose'], 'echo why >&2; exit 3')
      expect([code, out]).toEqual([1, ''])
      expect(err).toMatch(/^why\n(.*\n)*outcome +exited\n(.*\n)*.*EXITED: the function exited with code 3/)
    })

    it('says that this machine can run Mayfly', () => {
      const { code, out } = server.mayfly(['doctor', '--json'])
      expect([code, JSON.parse(out)]).toEqual([0, expect.objectContaining({ isFit: true })])
    })
  })

  describe('a second server', () => {
    it('on the same folder is refused in words', async () => {
      await expect(startServer(server.home)).rejects.toThrow('HOME_BUSY')
    })

    it('on a folder that the service cannot enter is refused in words', async () => {
      const closed = join(temporaryHome(), 'home')
      await expect(startServer(closed)).rejects.toThrow('MAYFLY_HOME: ')
      rmSync(dirname(closed), { recursive: true, force: true })
    })

    it('on its port is refused in words', async () => {
      const home = temporaryHome()
      await expect(startServer(home, { PORT: new URL(server.url).port })).rejects.toThrow('is taken')
      rmSync(home, { recursive: true, force: true })
    })
  })

  describe('the life of a server', () => {
    it('ends by SIGTERM when what runs has ended, and what it had deployed is there again', async () => {
      const first = await startServer()
      const running = first.invoke('shell', 'sleep 1; echo done')
      await until(() => first.mayfly(['ps', 'shell']).out.includes('leased'), 'the lease')
      first.process.kill('SIGTERM')
      expect(await (await running).text()).toBe('done\n')
      const [code] = await once(first.process, 'exit')
      expect(code).toBe(0)

      const second = await startServer(first.home)
      expect([...second.functions].sort()).toEqual([...first.functions].sort())
      expect(await (await second.invoke('echo', 'again')).text()).toBe('again')
      await abandon(second)
    })

    it('ends at once by a second SIGTERM', async () => {
      const busy = await startServer()
      const running = busy.invoke('shell', 'sleep 25').catch(() => undefined)
      await until(() => busy.mayfly(['ps', 'shell']).out.includes('leased'), 'the lease')
      busy.process.kill('SIGTERM')
      await until(() => busy.log().includes('draining'), 'the drain')
      busy.process.kill('SIGTERM')
      const [code] = await once(busy.process, 'exit')
      expect(code).toBe(128 + 15)
      await running
      await abandon(busy)
    })

    it('ends with 70 when sandboxd is gone', async () => {
      const victim = await startServer()
      const sandboxd = (await processesOf(victim)).find(({ command }) => command.startsWith('mayfly-sandboxd'))
      process.kill(sandboxd?.pid ?? Number.NaN, 'SIGKILL')
      const [code] = await once(victim.process, 'exit')
      expect(code).toBe(70)
      await abandon(victim)
    })
  })

  describe('the README', () => {
    it('has a library example that runs', () => {
      const [, example = ''] = /```ts\n([\s\S]*?)```/.exec(readFileSync(join(ROOT, 'README.md'), 'utf8')) ?? []
      const home = temporaryHome()
      const program = example.replace("'/var/lib/mayfly'", JSON.stringify(home))
      // Within the package its own name resolves by `exports`, as in a program that depends on it.
      const args = ['--input-type=module-typescript', '--eval', program]
      const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' })
      rmSync(home, { recursive: true, force: true })
      expect([status, stderr]).toEqual([0, ''])
      expect(stdout).toMatch(/ ok +1 +6 +19/)
    })
  })
})
