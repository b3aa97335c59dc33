// Whether a terminal shows what was measured, in lines that fit it.
import { describe, expect, it } from 'vitest'
import { formatDuration, formatElapsed, formatFigure, formatNumber, formatRatio } from '../../../bench/format.ts'
import { higher, lower } from '../../../bench/measure.ts'
import { mergeRuns } from '../../../bench/merge.ts'
import { renderEnd, renderHost, renderRatios, renderSection } from '../../../bench/report.ts'
import { atLeast, atMost, type Section } from '../../../bench/scenario.ts'
import { latencyOf, resultOf, sectionOf, tailed } from './_result.ts'

const WORDS = 'mount pid net ipc uts cgroup namespaces, a root of its own, cgroup limits; no seccomp filter at all'
const linesOf = (text: string) => text.split('\n')
const render = (...runs: Section[]) =>
  mergeRuns(runs.map((run) => [run]))
    .map(renderSection)
    .join('')

describe('renderSection', () => {
  const long = sectionOf(
    [
      {
        name: 'Mayfly',
        latency: tailed(1),
        figures: { 'CPU per call': lower(120, 'µs') },
        isolated: WORDS,
        fresh: WORDS,
      },
      { name: WORDS, latency: latencyOf(900), isolated: '-', fresh: '-' },
    ],
    {
      title: `${WORDS} `.repeat(3).trim(),
      method: `${WORDS} `.repeat(4).trim(),
      notes: [`${WORDS} `.repeat(2).trim()],
    },
  )

  it('folds words where a line would be too long, and loses none', () => {
    const text = render(long)
    expect(Math.max(...linesOf(text).map(({ length }) => length))).toBeLessThanOrEqual(
      process.stdout.columns ? 160 : 140,
    )
    const count = (what: string) => what.split(/[\s─]+/).filter((word) => word.startsWith('seccomp')).length
    expect(count(text)).toBe(3 + 4 + 2 + 2 + 1)
  })

  it('keeps its columns below each other', () => {
    const lines = linesOf(
      render(
        sectionOf([
          { name: 'a', latency: tailed(1) },
          { name: 'a longer name', latency: tailed(0.05, 2000) },
        ]),
      ),
    )
    const rows = lines.filter((line) => /p50|^a/.test(line))
    expect(rows).toHaveLength(3)
    expect(new Set(rows.map(({ length }) => length)).size).toBe(1)
  })

  it('says no percentile that the calls are too few for', () => {
    const row = (calls: number) => linesOf(render(sectionOf([{ name: 'x', latency: tailed(1, calls) }]))).at(-2) ?? ''
    expect(row(9).match(/–/g)).toHaveLength(3)
    expect(row(10).match(/–/g)).toHaveLength(2)
    expect(row(100).match(/–/g)).toHaveLength(1)
    expect(row(1000)).not.toContain('–')
  })

  it('shows figures without latencies, and stages as bars', () => {
    const figures = render(sectionOf([{ name: 'x', figures: { rate: higher(480, '/s') } }], { chart: 'figures' }))
    expect(figures).not.toContain('p50')
    expect(figures).toContain('480 /s')
    const stages = render(
      sectionOf(
        [
          { name: 'exec', latency: latencyOf(2) },
          { name: 'clone', latency: latencyOf(1) },
        ],
        { chart: 'stages' },
      ),
    )
    expect(stages.match(/█+/g)?.map(({ length }) => length)).toEqual([24, 12])
  })
})

describe('renderRatios', () => {
  const ratios = resultOf(
    [1, 1.07, 0.98].map((value) => [
      sectionOf([], { ratios: [atMost('p50', value, 1.4), atLeast('rate', value, 450)] }),
    ]),
  ).ratios

  it('says the median, how far the runs lie apart, the bound and whether it is met', () => {
    const text = renderRatios(ratios, false)
    expect(text).toMatch(/p50 +1\.00 \(0\.98–1\.07\) +≤ 1\.4 +✓/)
    expect(text).toMatch(/rate +1\.00 \(0\.98–1\.07\) +≥ 450 +✗/)
  })

  it('claims nothing of a quick run', () => {
    const text = renderRatios(ratios, true)
    expect(text).not.toMatch(/✓|✗/)
    expect(text).toContain('no number means anything')
  })
})

describe('renderHost and renderEnd', () => {
  it('say what it ran on, what failed and how long it took', () => {
    const result = resultOf([[]])
    const host = renderHost({ ...result.host, warnings: ['a storm'] })
    expect(host).toContain('2 × A processor (virtual), 8 GiB, cgroups v2')
    expect(host).toContain('peers: bwrap 0.8.0')
    expect(host).toContain('! a storm')
    const failed = { name: 'refill', durationsMs: [], failures: [{ run: 2, message: 'it rained' }], sections: [] }
    const end = renderEnd({ ...result, scenarios: [failed] })
    expect(end).toContain('refill failed in run 2: it rained')
    expect(end).toContain('10 answers, all right, from 5 sandboxes of ours, none seen twice; in 1 min 5 s.')
  })
})

describe('numbers', () => {
  it.each([
    [1.26, '1.3 µs'],
    [99.96, '100.0 µs'],
    [123.4, '123 µs'],
    [1234, '1.23 ms'],
    [123_456, '123 ms'],
    [1_234_567, '1.23 s'],
  ])('say %f µs as %s', (us, text) => expect(formatDuration(us)).toBe(text))

  it.each([
    [0, '0'],
    [3, '3'],
    [0.1234, '0.123'],
    [1.234, '1.23'],
    [12.34, '12.3'],
    [12_345.6, '12,346'],
    [-0.5, '-0.500'],
  ])('say %f as %s', (value, text) => expect(formatNumber(value)).toBe(text))

  it('say the spread, and a unit once', () => {
    expect(formatFigure({ ...lower(5, 'KiB'), runs: [4, 5, 6] })).toBe('5 KiB (4–6)')
    expect(formatFigure({ ...lower(2000, 'µs'), runs: [1500, 2000, 3000] })).toBe('2.00 ms (1.50–3.00 ms)')
    expect(formatFigure({ ...lower(900, 'µs'), runs: [900, 3000] })).toBe('900 µs (900 µs–3.00 ms)')
    expect(formatFigure({ ...higher(480, '/s'), runs: [480] })).toBe('480 /s')
    expect(formatRatio({ value: 0.085, runs: [] })).toBe('0.085')
    expect(formatRatio({ value: null, runs: [] })).toBe('unknown')
  })

  it('say how long it took', () => {
    expect([400, 59_400, 59_600, 125_000].map(formatElapsed)).toEqual(['0 s', '59 s', '1 min 0 s', '2 min 5 s'])
  })
})
