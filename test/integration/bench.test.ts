// Whether the benchmark still runs and every contender answers right. Says nothing about speed: that needs a quiet host.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readResult } from '../../bench/result.ts'

const MAIN = join(import.meta.dirname, '../../bench/main.ts')
const folder = mkdtempSync(join(tmpdir(), 'mayfly bench-'))
// The server that is called over HTTP is nobody in particular and must find its home.
chmodSync(folder, 0o755)

afterAll(() => rmSync(folder, { recursive: true, force: true }))

const env = { ...process.env, MAYFLY_HOME: join(folder, 'home'), NO_COLOR: '1' }

function bench(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [MAIN, ...args], { env }, (_, out, err) =>
      resolve({ code: child.exitCode ?? -1, out, err }),
    )
  })
}

describe('npm run bench', () => {
  it('runs every scenario, checks every answer and writes what it measured', async () => {
    const json = join(folder, 'result.json')
    const html = join(folder, 'page.html')
    const { code, out, err } = await bench('--quick', '--json', json, '--html', html)
    expect({ code, err: code === 0 ? '' : err + out }).toEqual({ code: 0, err: '' })
    const result = readResult(json)
    expect(result.scenarios.map(({ name }) => name)).toEqual(expect.arrayContaining(['lease', 'kill']))
    const sections = result.scenarios.flatMap((scenario) => scenario.sections)
    for (const { title, rows } of sections) {
      // Folded where it is long.
      expect(out).toContain(title.slice(0, 60))
      expect(rows.length).toBeGreaterThan(0)
      for (const { latency } of rows) {
        if (latency === undefined) continue
        expect(latency.count).toBeGreaterThan(0)
        expect(latency.p50Us).toBeLessThanOrEqual(latency.p99Us)
      }
    }
    expect(result.sandboxesSeen).toBeGreaterThan(0)
    expect(result.answersChecked).toBeGreaterThanOrEqual(result.sandboxesSeen)
    expect(result.ratios).toEqual(sections.flatMap(({ ratios }) => ratios))
    expect(result.ratios.length).toBeGreaterThan(0)
    const page = readFileSync(html, 'utf8')
    for (const { id } of sections) expect(page).toContain(`<section id="${id}">`)
    expect((await bench('compare', json, json)).code).toBe(0)
  })

  it('leaves nothing behind when it is interrupted', async () => {
    // A group of its own, as a terminal has it: the signal reaches every child too.
    const child = spawn(process.execPath, [MAIN, 'lease'], { env, detached: true, stdio: ['ignore', 'ignore', 'pipe'] })
    const exited = once(child, 'exit')
    await Promise.race([once(child.stderr, 'data'), exited])
    process.kill(-(child.pid ?? 0), 'SIGINT')
    expect(await exited).toEqual([130, null])
    // The pools are closed: whoever comes next can open them at once.
    expect(await bench('kill', '--quick')).toMatchObject({ code: 0 })
  })

  it('names what it can run when asked for what it cannot', async () => {
    const { code, err } = await bench('speed')
    expect(code).toBe(2)
    expect(err).toContain('"speed" is no scenario')
    expect(err).toContain('lease')
  })
})
