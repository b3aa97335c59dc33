// What several runs of the same scenarios say together: histograms are added, figures and ratios are medians, and what
// each run said is kept beside them.
import { Latency } from './measure.ts'
import type { FigureResult, LatencyResult, RatioResult, RowResult, SectionResult } from './result.ts'
import type { Figure, Ratio, Row, Section } from './scenario.ts'

/** Sections that ended in one run only are there too: what failed in another is said elsewhere. */
export function mergeRuns(runs: readonly (readonly Section[])[]): SectionResult[] {
  const sections = runs.flat()
  return unique(sections.map(({ id }) => id)).map((id) =>
    mergeSections(sections.filter((section) => section.id === id)),
  )
}

/** Throws where a scenario breaks what everybody who reads its sections relies on. */
export function checkSections(sections: readonly Section[]): void {
  refuseTwins(
    'sections',
    sections.map(({ id }) => id),
  )
  for (const { id, rows, ratios } of sections) {
    refuseTwins(
      `rows of ${id}`,
      rows.map(({ name }) => name),
    )
    refuseTwins(
      `ratios of ${id}`,
      ratios.map(({ name }) => name),
    )
    for (const { name, latency, figures = {} } of rows) {
      if (latency?.count === 0) throw new Error(`${id}, ${name}: nothing was measured`)
      for (const [heading, { value }] of Object.entries(figures)) {
        if (!Number.isFinite(value)) throw new Error(`${id}, ${name}: ${heading} is ${value}`)
      }
    }
  }
}

/** Half of them lie below; in the middle of two where there is no middle one. */
export function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  const [below, above] = [sorted[Math.ceil(middle) - 1], sorted[Math.floor(middle)]]
  if (below === undefined || above === undefined) throw new Error('nothing has no median')
  return (below + above) / 2
}

function mergeSections(runs: readonly Section[]): SectionResult {
  // The last says the most of itself: sizes and notes may depend on what a run found.
  const last = lastOf(runs)
  const rows = runs.flatMap((section) => section.rows)
  const ratios = runs.flatMap((section) => section.ratios)
  const merged = groups(rows).map(mergeRows)
  return {
    id: last.id,
    title: last.title,
    method: last.method,
    chart: last.chart,
    rows: last.chart === 'stages' ? dearestFirst(merged) : merged,
    ratios: groups(ratios).map(mergeRatios),
    notes: mergeNotes(runs.flatMap((section) => section.notes)),
  }
}

/** Each run has an order of its own, and none is that of all together. */
function dearestFirst(rows: readonly RowResult[]): RowResult[] {
  return rows.toSorted((a, b) => (b.latency?.p50Us ?? 0) - (a.latency?.p50Us ?? 0))
}

/** Those that differ in numbers only are one note, as the last run says it. */
function mergeNotes(notes: readonly string[]): string[] {
  return [...new Map(notes.map((note) => [note.replaceAll(/[\d.]+/g, '#'), note])).values()]
}

function mergeRows(runs: readonly Row[]): RowResult {
  const { name, isolated, fresh } = lastOf(runs)
  const latencies = runs.flatMap(({ latency }) => latency ?? [])
  const headings = unique(runs.flatMap(({ figures }) => Object.keys(figures ?? {})))
  const figureOf = (heading: string) => mergeFigures(runs.flatMap(({ figures }) => figures?.[heading] ?? []))
  return {
    name,
    ...(latencies.length > 0 && { latency: mergeLatencies(latencies) }),
    ...(headings.length > 0 && {
      figures: Object.fromEntries(headings.map((heading) => [heading, figureOf(heading)])),
    }),
    ...(isolated !== undefined && { isolated }),
    ...(fresh !== undefined && { fresh }),
  }
}

function mergeLatencies(latencies: readonly Latency[]): LatencyResult {
  const sum = new Latency()
  for (const latency of latencies) sum.add(latency)
  return { ...sum.summary, distribution: sum.distribution(), runs: latencies.map(({ summary }) => summary) }
}

function mergeFigures(figures: readonly Figure[]): FigureResult {
  const { unit, better } = lastOf(figures)
  const runs = figures.map(({ value }) => value)
  return { value: medianOf(runs), unit, better, runs }
}

/** One ratio of medians would hide a run that went astray; the median of the runs' ratios does not follow it. */
function mergeRatios(ratios: readonly Ratio[]): RatioResult {
  const { name, bound, isFloor } = lastOf(ratios)
  const runs = ratios.flatMap(({ value }) => (value !== null && Number.isFinite(value) ? value : []))
  const value = runs.length === 0 ? null : medianOf(runs)
  const isKnown = value !== null && bound !== null
  return { name, value, bound, isFloor, met: isKnown ? (isFloor ? value >= bound : value <= bound) : null, runs }
}

/** Those of one name together, in the order in which names were first seen. */
function groups<T extends { readonly name: string }>(all: readonly T[]): T[][] {
  return unique(all.map(({ name }) => name)).map((name) => all.filter((one) => one.name === name))
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)]
}

function refuseTwins(what: string, names: readonly string[]): void {
  const twin = names.find((name, index) => names.indexOf(name) !== index)
  if (twin !== undefined) throw new Error(`two ${what} are called ${JSON.stringify(twin)}`)
}

function lastOf<T>(values: readonly T[]): T {
  const last = values.at(-1)
  if (last === undefined) throw new Error('nothing to merge')
  return last
}
