// Whether the benchmark still runs and every contender answers right. Says nothing about speed: that needs a quiet host.
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { Report } from '../../bench/report.ts'

const MAIN = join(import.meta.dirname, '../../bench/main.ts')
const folder = mkdtempSync(join(tmpdir(), 'mayfly bench-'))

afterAll(() => rmSync(folder, { recursive: true, force: true }))

function bench(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const env = { ...process.env, MAYFLY_HOME: join(folder, 'home'), NO_COLOR: '1' }
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [MAIN, ...args], { env }, (_, out, err) =>
      resolve({ code: child.exitCode ?? -1, out, err }),
    )
  })
}

describe('npm run bench', () => {
  it('runs every scenario, checks every answer and writes what it measured', async () => {
    const json = join(folder, 'report.json')
    const { code, out, err } = await bench('--quick', '--json', json)
    expect({ code, err: code === 0 ? '' : err }).toEqual({ code: 0, err: '' })
    const report = JSON.parse(readFileSync(json, 'utf8')) as Report
    expect(report.scenarios.map(({ name }) => name)).toEqual(['lease', 'kill'])
    const sections = report.scenarios.flatMap((scenario) => scenario.sections)
    for (const { title, rows } of sections) {
      expect(out).toContain(title)
      expect(rows.length).toBeGreaterThan(0)
      for (const { latency } of rows) {
        expect(latency.count).toBeGreaterThan(0)
        expect(latency.p50Us).toBeLessThanOrEqual(latency.p99Us)
      }
    }
    expect(report.sandboxesSeen).toBeGreaterThan(0)
    expect(report.answersChecked).toBeGreaterThanOrEqual(report.sandboxesSeen)
    expect(report.ratios).toEqual(sections.flatMap(({ ratios }) => ratios))
    expect(report.ratios.map(({ name }) => name)).toEqual([
      'pooled fresh call over a never-used plain child, p50',
      'pooled fresh call over a never-used plain child, p99',
      'cold miss over bwrap --unshare-all, p50',
      'cold miss over unshare(1), all namespaces, p50',
      'kill under a quota of 5 %, deadline until gone, median in ms',
    ])
  })

  it('names what it can run when asked for what it cannot', async () => {
    const { code, err } = await bench('speed')
    expect(code).toBe(2)
    expect(err).toContain('"speed" is no scenario')
    expect(err).toContain('lease')
  })
})
