// What got better or worse from one result to another beyond noise. With three runs or more in both, noise is how far the
// runs of one result lie apart; with fewer it is a guess, and the guess is said.
import { formatDuration, formatNumber } from './format.ts'
import { type LatencyResult, type RatioResult, type Result, type RowResult, readResult } from './result.ts'
import { type Column, line, renderParagraph, renderTable, styled } from './table.ts'

/** Fewer than that say nothing of how far apart they lie. */
const RUNS_MIN = 3
/** Machines differ by that from one hour to the next, however close the runs of an hour are. */
const NOISE_MIN = 0.05
const GUESSED = { p50: 0.1, p99: 0.25, figure: 0.1, ratio: 0.1 } as const
/** With fewer calls the slowest in a hundred is the slowest of all, which is anything. */
const P99_CALLS_MIN = 100

export interface Change {
  /** The section's id, the row's name and what of it. */
  readonly what: string
  readonly unit: string
  readonly before: number
  readonly after: number
  /** By how much `after` lies from `before`, as a part of it; nothing where that was 0. */
  readonly change: number | null
  readonly noise: number
  readonly verdict: 'better' | 'worse' | 'same'
}

export interface Comparison {
  /** The largest effect first. */
  readonly worse: readonly Change[]
  readonly better: readonly Change[]
  readonly same: number
  /** What makes the two hard to compare. */
  readonly warnings: readonly string[]
  /** What only one of them has, and which claims no longer hold. */
  readonly notes: readonly string[]
}

interface Measured {
  readonly unit: string
  readonly better: 'lower' | 'higher'
  readonly value: number
  readonly runs: readonly number[]
  readonly guessed: number
}

export function compareFiles({ before, after, asJson }: CompareOptions): { text: string; exitCode: number } {
  const comparison = compareResults(readResult(before), readResult(after))
  const text = asJson ? `${JSON.stringify(comparison, null, 2)}\n` : renderComparison(comparison)
  return { text, exitCode: comparison.worse.length > 0 ? 1 : 0 }
}

interface CompareOptions {
  readonly before: string
  readonly after: string
  readonly asJson: boolean
}

export function compareResults(before: Result, after: Result): Comparison {
  const [old, now] = [measuredIn(before), measuredIn(after)]
  const changes = [...old].flatMap(([what, one]) => {
    const other = now.get(what)
    return other === undefined ? [] : compareMeasured(what, one, other)
  })
  const sorted = changes.toSorted((a, b) => effectOf(b) - effectOf(a))
  const only = (where: string, these: typeof old, those: typeof old) =>
    [...these.keys()].filter((what) => !those.has(what)).map((what) => `only in the ${where}: ${what}`)
  return {
    worse: sorted.filter(({ verdict }) => verdict === 'worse'),
    better: sorted.filter(({ verdict }) => verdict === 'better'),
    same: sorted.filter(({ verdict }) => verdict === 'same').length,
    warnings: warningsOf(before, after),
    notes: [...brokenClaims(before, after), ...only('first', old, now), ...only('second', now, old)],
  }
}

function compareMeasured(what: string, before: Measured, after: Measured): Change {
  const isKnown = before.runs.length >= RUNS_MIN && after.runs.length >= RUNS_MIN
  const noise = isKnown ? Math.max(NOISE_MIN, spreadOf(before), spreadOf(after)) : before.guessed
  const difference = after.value - before.value
  const change = before.value === 0 ? null : difference / Math.abs(before.value)
  const isBeyond = change === null ? difference !== 0 : Math.abs(change) > noise
  const isWorse = after.better === 'lower' ? difference > 0 : difference < 0
  const verdict = isBeyond ? (isWorse ? 'worse' : 'better') : 'same'
  return { what, unit: after.unit, before: before.value, after: after.value, change, noise, verdict }
}

/** From the lowest run to the highest, as a part of what lies between. */
function spreadOf({ runs, value }: Measured): number {
  return value === 0 ? 0 : (Math.max(...runs) - Math.min(...runs)) / Math.abs(value)
}

/** Twice as much and half as much are the same effect. */
function effectOf({ before, after }: Change): number {
  return before > 0 && after > 0 ? Math.abs(Math.log(after / before)) : Number.POSITIVE_INFINITY
}

function measuredIn({ scenarios }: Result): Map<string, Measured> {
  const all = new Map<string, Measured>()
  for (const { id, rows, ratios } of scenarios.flatMap(({ sections }) => sections)) {
    for (const row of rows)
      for (const [what, measured] of measuredOf(row)) all.set(`${id}, ${row.name}, ${what}`, measured)
    for (const ratio of ratios) {
      const { value, runs } = ratio
      if (value !== null) all.set(`${id}, ${ratio.name}`, { ...ratioMeans(ratio), value, runs, guessed: GUESSED.ratio })
    }
  }
  return all
}

function measuredOf({ latency, figures = {} }: RowResult): [string, Measured][] {
  const found: [string, Measured][] = Object.entries(figures).map(([heading, figure]) => [
    heading,
    { ...figure, guessed: GUESSED.figure },
  ])
  if (latency === undefined) return found
  found.push(['p50', latencyMeasured(latency, 'p50Us', GUESSED.p50)])
  if (latency.count >= P99_CALLS_MIN) found.push(['p99', latencyMeasured(latency, 'p99Us', GUESSED.p99)])
  return found
}

function latencyMeasured(latency: LatencyResult, key: 'p50Us' | 'p99Us', guessed: number): Measured {
  return { unit: 'µs', better: 'lower', value: latency[key], runs: latency.runs.map((run) => run[key]), guessed }
}

function ratioMeans({ isFloor }: RatioResult): Pick<Measured, 'unit' | 'better'> {
  return { unit: '', better: isFloor ? 'higher' : 'lower' }
}

function warningsOf(before: Result, after: Result): string[] {
  const warnings: string[] = []
  const facts = [
    'kernel',
    'cpus',
    'cpuModel',
    'memoryBytes',
    'governor',
    'hasTurbo',
    'cgroups',
    'isVirtual',
    'node',
  ] as const
  for (const fact of facts) {
    const [old, now] = [before.host[fact], after.host[fact]]
    if (old !== now) warnings.push(`the hosts differ: ${fact} was ${old} and is ${now}`)
  }
  for (const [peer, version] of Object.entries(before.host.peers)) {
    const now = after.host.peers[peer]
    if (now !== undefined && now !== version) warnings.push(`the hosts differ: ${peer} was ${version} and is ${now}`)
  }
  if (before.isQuick || after.isQuick) warnings.push('a quick run is among them: no number of it means anything')
  if (Math.min(before.runs, after.runs) < RUNS_MIN) {
    const percent = (part: number) => `${part * 100} %`
    warnings.push(
      `fewer than ${RUNS_MIN} runs: noise is taken to be ${percent(GUESSED.p50)} of a median, of a figure and of a ` +
        `ratio, and ${percent(GUESSED.p99)} of a p99`,
    )
  }
  for (const [name, { host }] of [['first', before] as const, ['second', after] as const]) {
    warnings.push(...host.warnings.map((text) => `of the ${name}: ${text}`))
  }
  return warnings
}

function brokenClaims(before: Result, after: Result): string[] {
  const held = new Set(before.ratios.filter(({ met }) => met === true).map(({ name }) => name))
  return after.ratios
    .filter(({ met, name }) => met === false && held.has(name))
    .map(({ name }) => `no longer met: ${name}`)
}

function renderComparison({ worse, better, same, warnings, notes }: Comparison): string {
  const part = (title: string, changes: readonly Change[]) =>
    changes.length === 0 ? '' : `\n${styled('bold', line(title))}${renderTable(COLUMNS, changes.map(cellsOf))}`
  const counts = `${worse.length} worse, ${better.length} better, ${same} the same within noise`
  return [
    ...warnings.map((text) => styled('yellow', renderParagraph(text, '! '))),
    part('Worse', worse),
    part('Better', better),
    notes.length === 0 ? '' : `\n${notes.map((note) => renderParagraph(note, '- ')).join('')}`,
    `\n${line(`${counts}.`)}`,
  ].join('')
}

const COLUMNS: readonly Column[] = [
  { heading: '' },
  ...['before', 'after', 'change', 'noise'].map((heading) => ({ heading, isNumber: true })),
]

function cellsOf({ what, unit, before, after, change, noise }: Change): string[] {
  const say = (value: number) => (unit === 'µs' ? formatDuration(value) : `${formatNumber(value)}${unit && ` ${unit}`}`)
  const percent = (part: number) => `${(part * 100).toFixed(0)} %`
  const by = change === null ? 'from 0' : `${change > 0 ? '+' : ''}${percent(change)}`
  return [what, say(before), say(after), by, `±${percent(noise)}`]
}
