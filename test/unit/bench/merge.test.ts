// What several runs say together, and what a scenario may not say.
import { describe, expect, it } from 'vitest'
import { lower } from '../../../bench/measure.ts'
import { checkSections, medianOf, mergeRuns } from '../../../bench/merge.ts'
import { atLeast, atMost, type Section } from '../../../bench/scenario.ts'
import { latencyOf, sectionOf } from './_result.ts'

/** One run of one section. */
const merged = (...runs: readonly Section[]) => mergeRuns(runs.map((section) => [section]))[0]

describe('medianOf', () => {
  it.each([
    [[7], 7],
    [[3, 1, 2], 2],
    [[10, 9, 1, 100], 9.5],
  ])('of %j is %j', (values, median) => expect(medianOf(values)).toBe(median))

  it('of nothing is an error', () => expect(() => medianOf([])).toThrow('no median'))
})

describe('mergeRuns', () => {
  it('adds the histograms of a row and keeps each run', () => {
    const row = (...ms: number[]) => sectionOf([{ name: 'Mayfly', latency: latencyOf(...ms) }])
    const latency = merged(row(1, 1), row(3), row(3, 3))?.rows[0]?.latency
    expect(latency?.count).toBe(5)
    expect(latency?.p50Us).toBeGreaterThan(2900)
    expect(latency?.runs.map(({ count }) => count)).toEqual([2, 1, 2])
    expect(latency?.runs[0]?.p50Us).toBeLessThan(1100)
  })

  it('takes the median of figures', () => {
    const row = (value: number) => sectionOf([{ name: 'Mayfly', figures: { memory: lower(value, 'KiB') } }])
    expect(merged(row(10), row(90), row(20))?.rows[0]?.figures).toEqual({
      memory: { value: 20, unit: 'KiB', better: 'lower', runs: [10, 90, 20] },
    })
  })

  it('takes the median of ratios and looks at the bound again', () => {
    const run = (value: number) => sectionOf([], { ratios: [atMost('most', value, 1.4), atLeast('least', value, 1.4)] })
    const ratios = merged(run(1), run(1.5), run(1.1))?.ratios
    expect(ratios).toEqual([
      { name: 'most', value: 1.1, bound: 1.4, isFloor: false, met: true, runs: [1, 1.5, 1.1] },
      { name: 'least', value: 1.1, bound: 1.4, isFloor: true, met: false, runs: [1, 1.5, 1.1] },
    ])
  })

  it('claims nothing where the other side was never there', () => {
    const run = (value?: number) => sectionOf([], { ratios: [atMost('over runc', value, 1)] })
    expect(merged(run(), run())?.ratios[0]).toMatchObject({ value: null, met: null, runs: [] })
    expect(merged(run(), run(0.5))?.ratios[0]).toMatchObject({ value: 0.5, met: true, runs: [0.5] })
    expect(merged(run(Number.NaN))?.ratios[0]).toMatchObject({ value: null, met: null })
  })

  it('keeps what only some runs have, in the order in which it came', () => {
    const run = (...names: string[]) => sectionOf(names.map((name) => ({ name, latency: latencyOf(1) })))
    expect(merged(run('a', 'b'), run('a', 'c', 'b'))?.rows.map(({ name }) => name)).toEqual(['a', 'b', 'c'])
    const ids = mergeRuns([[sectionOf([], { id: 'a' })], [sectionOf([], { id: 'b' }), sectionOf([], { id: 'a' })]])
    expect(ids.map(({ id }) => id)).toEqual(['a', 'b'])
  })

  it('puts the dearest stage of all runs first', () => {
    const run = (exec: number, clone: number) =>
      sectionOf(
        [
          { name: 'exec', latency: latencyOf(exec) },
          { name: 'clone', latency: latencyOf(clone) },
        ],
        { chart: 'stages' },
      )
    expect(merged(run(2, 1), run(1, 9), run(1, 9))?.rows.map(({ name }) => name)).toEqual(['clone', 'exec'])
  })

  it('says a note once, though its numbers differ', () => {
    const run = (...notes: string[]) => sectionOf([], { notes })
    expect(merged(run('in all 4.5 ms', 'no runc'), run('in all 6 ms', 'no crun'))?.notes).toEqual([
      'in all 6 ms',
      'no runc',
      'no crun',
    ])
  })
})

describe('checkSections', () => {
  it.each([
    ['two sections of one name', [sectionOf([]), sectionOf([])], 'two sections are called "lease.link"'],
    ['two rows of one name', [sectionOf([{ name: 'a' }, { name: 'a' }])], 'two rows of lease.link are called "a"'],
    ['two ratios of one name', [sectionOf([], { ratios: [atMost('a', 1), atMost('a', 2)] })], 'two ratios of'],
    ['a figure that is no number', [sectionOf([{ name: 'a', figures: { rate: lower(Number.NaN) } }])], 'rate is NaN'],
    ['a latency of no calls', [sectionOf([{ name: 'a', latency: latencyOf() }])], 'nothing was measured'],
  ])('refuses %s', (_, sections, message) => expect(() => checkSections(sections)).toThrow(message))

  it('lets pass what is in order', () => {
    checkSections([sectionOf([{ name: 'a', latency: latencyOf(1), figures: { rate: lower(0) } }, { name: 'b' }])])
  })
})
