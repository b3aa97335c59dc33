// go-judge, our nearest cousin: sandboxes for programs, forked ahead and cleared between runs, behind an HTTP API. Runs
// the binary that answers by exiting, with limits as strict as ours by default, and ends rather than run without groups.
import { readdir, rmdir, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { DEFAULT_LIMITS } from '../../contract/limits.ts'
import type { CalledPeer, Callee } from './callee.ts'
import { Client } from './http.ts'
import { findProgram, makePeersFolder } from './place.ts'
import { Program } from './program.ts'

const PRE_FORKED = 8
const ANSWER_BYTES_MAX = 64 * 1024
const NS_PER_MS = 1e6
const CGROUP = 'mayfly-bench-go-judge'
const CGROUP_MOUNT = '/sys/fs/cgroup'
const POLL_MS = 20
const POLLS_MAX = 250

interface Result {
  readonly status: string
  readonly error?: string
  readonly files?: { readonly stdout: string }
}

export const goJudge: CalledPeer = {
  name: 'go-judge over HTTP, forked ahead',
  isolated: 'namespaces, a root, limits; no filter',
  fresh: 'process; its container is cleared and used again',
  package: 'go-judge',
  async open({ root }) {
    const folder = await makePeersFolder('go-judge')
    await writeFile(join(folder, 'mount.yaml'), mountsOf(root))
    const port = await freePort()
    const size = ['-pre-fork', `${PRE_FORKED}`, '-parallelism', `${PRE_FORKED}`]
    const groups = ['-cgroup-prefix', CGROUP, '-no-fallback']
    const options = ['-http-addr', `127.0.0.1:${port}`, '-mount-conf', join(folder, 'mount.yaml'), '-silent']
    const program = new Program([findProgram('go-judge') ?? 'go-judge', ...options, ...size, ...groups], {
      cwd: folder,
    })
    const client = new Client(port)
    const callee = new GoJudge(program, client)
    try {
      await program.ready(untilAnswering(client))
      return callee
    } catch (error) {
      await callee.close()
      throw error
    }
  },
}

class GoJudge implements Callee {
  readonly #program: Program
  readonly #client: Client

  constructor(program: Program, client: Client) {
    this.#program = program
    this.#client = client
  }

  async call(payload: Buffer) {
    const answer = await this.#client.post('/run', Buffer.from(requestOf(payload)), 'application/json')
    const [result] = JSON.parse(answer.toString()) as Result[]
    if (result?.status !== 'Accepted') throw new Error(`a run ended as ${JSON.stringify(result)}`)
    return { answer: Buffer.from(result.files?.stdout ?? '', 'latin1') }
  }

  async close(): Promise<void> {
    this.#client.close()
    await this.#program.close()
    await removeGroups()
  }
}

function requestOf(payload: Buffer): string {
  const { cpuMs, wallMs, memoryBytes, pids } = DEFAULT_LIMITS
  const collect = (name: string) => ({ name, max: ANSWER_BYTES_MAX })
  const cmd = {
    args: ['/bed/stdio'],
    // JSON carries no bytes, so each is a character on the way.
    files: [{ content: payload.toString('latin1') }, collect('stdout'), collect('stderr')],
    cpuLimit: (cpuMs || wallMs) * NS_PER_MS,
    clockLimit: wallMs * NS_PER_MS,
    memoryLimit: memoryBytes,
    procLimit: pids,
  }
  return JSON.stringify({ cmd: [cmd] })
}

function mountsOf(root: string): string {
  const mount = [
    { type: 'bind', source: root, target: '/bed', readonly: true },
    { type: 'tmpfs', target: '/w', data: 'size=64m,nr_inodes=4k' },
    { type: 'tmpfs', target: '/tmp', data: 'size=64m,nr_inodes=4k' },
  ]
  // YAML is a superset of JSON.
  return JSON.stringify({
    mount,
    proc: true,
    workDir: '/w',
    hostName: 'bench',
    domainName: 'bench',
    uid: 1536,
    gid: 1536,
  })
}

async function untilAnswering(client: Client): Promise<void> {
  for (let polls = 0; polls < POLLS_MAX; polls++) {
    const isThere = await client.get('/version').then(
      () => true,
      () => false,
    )
    if (isThere) return
    await delay(POLL_MS)
  }
  throw new Error('it does not answer')
}

/** It takes no port 0. */
async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** What it made and left, in every hierarchy; nothing but its own can have that name. */
async function removeGroups(): Promise<void> {
  for (const hierarchy of ['', ...(await readdir(CGROUP_MOUNT).catch(() => []))]) {
    await removeGroup(join(CGROUP_MOUNT, hierarchy, CGROUP)).catch(() => undefined)
  }
}

async function removeGroup(path: string): Promise<void> {
  for (const entry of await readdir(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeGroup(join(path, entry.name))
  }
  await rmdir(path)
}
