// No write to /proc goes by a path that an image could have a say in (CVE-2025-52881): what is written there is written
// before the image's root is visible, or through a descriptor that was opened before.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { processesOfPool, UID_BASE } from '../_host.ts'
import { privileged, until, useHouse } from '../_setup.ts'

privileged('procfs', () => {
  const house = useHouse()
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-trace-'))
  const file = join(folder, 'trace')
  let tracer: ChildProcess

  beforeAll(async () => {
    // Which every builder is cloned from.
    const nursery = processesOfPool().find(({ uid, name }) => uid === UID_BASE && name === 'mayfly-nursery')
    const calls = 'trace=openat,open,openat2,creat,pivot_root'
    tracer = spawn('strace', ['-f', '-q', '-e', calls, '-o', file, '-p', `${nursery?.pid}`], { stdio: 'ignore' })
    await until(() => tracedBy(nursery?.pid ?? 0) === tracer.pid)
  })

  afterAll(async () => {
    tracer.kill('SIGINT')
    await once(tracer, 'exit')
    rmSync(folder, { recursive: true })
  })

  it('is opened for writing by no builder that has changed its root, over twenty sandboxes', async () => {
    for (let i = 0; i < 20; i++) expect((await house.invoke('echo')).outcome.status).toBe('ok')
    await house.rest()
    const calls = readFileSync(file, 'utf8').trimEnd().split('\n').map(parse)
    const pivoted = new Set<string>()
    const late = calls.filter(({ pid, call }) => {
      if (call.startsWith('pivot_root(')) pivoted.add(pid)
      return pivoted.has(pid) && isWriteTo('/proc', call)
    })
    expect(late).toEqual([])
    // It would have been seen: each builder did pivot, and each wrote to /proc before.
    expect(pivoted.size).toBeGreaterThanOrEqual(20)
    expect(calls.filter(({ call }) => isWriteTo('/proc', call)).length).toBeGreaterThanOrEqual(20)
  })
})

/** `PID call(arguments) = result` */
function parse(line: string): { pid: string; call: string } {
  const [, pid = '', call = ''] = /^(\d+)\s+(.*)$/.exec(line) ?? []
  return { pid, call }
}

function isWriteTo(prefix: string, call: string): boolean {
  return call.includes(`"${prefix}`) && /O_WRONLY|O_RDWR|O_CREAT/.test(call)
}

function tracedBy(pid: number): number {
  return Number(/^TracerPid:\s*(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
}
