// What counts as better or worse from one result to another, and what the exit code says of it.
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type Comparison, compareFiles, compareResults } from '../../../bench/compare.ts'
import { higher, lower } from '../../../bench/measure.ts'
import { type Result, readResult, UnreadableError, writeAside } from '../../../bench/result.ts'
import { atLeast, atMost, type Section } from '../../../bench/scenario.ts'
import { resultOf, sectionOf, tailed } from './_result.ts'

const folder = mkdtempSync(join(tmpdir(), 'mayfly compare-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const whats = (changes: Comparison['worse']) => changes.map(({ what }) => what)
const latencyRun = (ms: number): Section[] => [sectionOf([{ name: 'Mayfly', latency: tailed(ms) }])]
const rateRun = (rate: number): Section[] => [sectionOf([{ name: 'Mayfly', figures: { rate: higher(rate, '/s') } }])]
const latencies = (...ms: number[]) => resultOf(ms.map(latencyRun))
const rates = (...values: number[]) => resultOf(values.map(rateRun))

describe('compareResults', () => {
  it('finds nothing in a result and itself', () => {
    const same = latencies(1, 1.1, 1.2)
    expect(compareResults(same, same)).toEqual({ worse: [], better: [], same: 2, warnings: [], notes: [] })
  })

  it('takes the runs’ own spread for noise when there are three', () => {
    const { worse } = compareResults(latencies(1, 1, 1), latencies(1.2, 1.2, 1.2))
    expect(whats(worse).toSorted()).toEqual(['lease.link, Mayfly, p50', 'lease.link, Mayfly, p99'])
    expect(compareResults(latencies(0.8, 1, 1.3), latencies(1.2, 1.2, 1.2))).toMatchObject({ worse: [], same: 2 })
  })

  it('calls a drift of four percent noise however close the runs are', () => {
    expect(compareResults(latencies(1, 1, 1), latencies(1.04, 1.04, 1.04))).toMatchObject({ worse: [], same: 2 })
  })

  it('guesses the noise of few runs, says so, and is slower to blame a tail', () => {
    const { worse, same, warnings } = compareResults(latencies(1), latencies(1.2))
    expect(whats(worse)).toEqual(['lease.link, Mayfly, p50'])
    expect(same).toBe(1)
    expect(warnings).toEqual([expect.stringContaining('fewer than 3 runs')])
  })

  it('leaves out the tail of a hundred calls and fewer', () => {
    const few = (ms: number) => resultOf([[sectionOf([{ name: 'Mayfly', latency: tailed(ms, 50) }])]])
    expect(compareResults(few(1), few(9))).toMatchObject({ worse: [{ what: 'lease.link, Mayfly, p50' }], same: 0 })
  })

  it('knows which way of a figure is up', () => {
    expect(compareResults(rates(400), rates(500))).toMatchObject({ worse: [], better: [{ before: 400, after: 500 }] })
    expect(compareResults(rates(500), rates(400))).toMatchObject({ better: [], worse: [{ change: -0.2 }] })
  })

  it('knows which way of a ratio is up, and that a claim broke', () => {
    const ratios = (most: number, least: number) =>
      resultOf([[sectionOf([], { ratios: [atMost('most', most, 1.4), atLeast('least', least, 1.4)] })]])
    const { worse, better, notes } = compareResults(ratios(1, 1), ratios(2, 2))
    expect(whats(worse)).toEqual(['lease.link, most'])
    expect(whats(better)).toEqual(['lease.link, least'])
    expect(notes).toEqual(['no longer met: most'])
  })

  it('counts what was nothing and no longer is', () => {
    const misses = (value: number) => resultOf([[sectionOf([{ name: 'Mayfly', figures: { misses: lower(value) } }])]])
    expect(compareResults(misses(0), misses(3)).worse).toMatchObject([{ change: null, after: 3 }])
    expect(compareResults(misses(0), misses(0))).toMatchObject({ worse: [], better: [], same: 1 })
  })

  it('puts the largest effect first, half as much being as large as twice as much', () => {
    const run = (...values: number[]) =>
      resultOf([[sectionOf(values.map((value, row) => ({ name: `row ${row}`, figures: { time: lower(value) } })))]])
    const { worse } = compareResults(run(10, 10, 10), run(15, 40, 20))
    expect(worse.map(({ after }) => after)).toEqual([40, 20, 15])
  })

  it('says how the hosts differ, what they were warned of and what only one has', () => {
    const before = latencies(1, 1, 1)
    const host = { ...before.host, kernel: '6.18.0', peers: { bwrap: '0.9.0' }, warnings: ['a storm'] }
    const after: Result = { ...rates(1, 1, 1), host, isQuick: true }
    const { warnings, notes } = compareResults(before, after)
    expect(warnings).toEqual([
      'the hosts differ: kernel was 6.1.0 and is 6.18.0',
      'the hosts differ: bwrap was 0.8.0 and is 0.9.0',
      expect.stringContaining('quick run'),
      'of the second: a storm',
    ])
    expect(notes).toEqual([
      'only in the first: lease.link, Mayfly, p50',
      'only in the first: lease.link, Mayfly, p99',
      'only in the second: lease.link, Mayfly, rate',
    ])
  })
})

describe('compareFiles', () => {
  const write = (name: string, content: unknown): string => {
    const path = join(folder, name)
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
    return path
  }

  it('fails when something got worse, and only then', () => {
    const [fast, slow] = [write('fast.json', latencies(1, 1, 1)), write('slow.json', latencies(2, 2, 2))]
    const compare = (before: string, after: string) => compareFiles({ before, after, asJson: false })
    expect(compare(fast, slow)).toMatchObject({ exitCode: 1, text: expect.stringMatching(/Worse[\s\S]*\+100 %/) })
    expect(compare(slow, fast)).toMatchObject({ exitCode: 0, text: expect.stringMatching(/Better[\s\S]*-50 %/) })
    expect(compare(fast, fast)).toMatchObject({ exitCode: 0, text: expect.stringContaining('0 worse, 0 better') })
  })

  it('says the same as JSON', () => {
    const [before, after] = [write('a.json', latencies(1, 1, 1)), write('b.json', latencies(2, 2, 2))]
    const { text } = compareFiles({ before, after, asJson: true })
    expect(JSON.parse(text)).toEqual(compareResults(readResult(before), readResult(after)))
  })

  it.each([
    ['is not there', undefined, 'cannot be read'],
    ['is no JSON', '{', 'cannot be read'],
    ['is empty', 'null', 'says no version'],
    ['is of the version before', { ...latencies(1), version: 1 }, 'has version 1'],
    ['lacks what it should have', { version: 2 }, 'is no result of a benchmark'],
  ])('refuses a file that %s', (name, content, message) => {
    const path = content === undefined ? join(folder, 'nowhere.json') : write(`${name}.json`, content)
    expect(() => readResult(path)).toThrow(UnreadableError)
    expect(() => readResult(path)).toThrow(message)
    expect(() => readResult(path)).toThrow(path)
  })
})

describe('writeAside', () => {
  it('leaves nothing beside the file, and the old one where it fails', async () => {
    const inner = mkdtempSync(join(folder, 'aside-'))
    await writeAside(join(inner, 'result.json'), JSON.stringify(latencies(1)))
    expect(readResult(join(inner, 'result.json')).runs).toBe(1)
    await expect(writeAside(join(inner, 'missing', 'result.json'), '{}')).rejects.toThrow('ENOENT')
    await expect(writeAside(inner, '{}')).rejects.toThrow()
    expect(readdirSync(inner)).toEqual(['result.json'])
  })
})
