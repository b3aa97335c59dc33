// What a run looks like on a terminal.
import { formatBound, formatElapsed, formatFigure, formatRatio, percentilesOf } from './format.ts'
import { factsOf, peersOf } from './host.ts'
import type { ListedPeer } from './peers/install.ts'
import type { Host, RatioResult, Result, RowResult, SectionResult } from './result.ts'
import { type Column, line, renderParagraph, renderTable, styled } from './table.ts'

/** Of the longest stage, in characters. */
const BAR_WIDTH = 24

export function renderHost(host: Host): string {
  const peers = peersOf(host)
  return [
    renderParagraph(factsOf(host).join(', ')),
    peers.length === 0 ? '' : renderParagraph(`peers: ${peers.join(', ')}`),
    renderWarnings(host.warnings),
  ].join('')
}

export function renderWarnings(warnings: readonly string[]): string {
  return warnings.map((text) => styled('yellow', renderParagraph(text, '! '))).join('')
}

export function renderSection(section: SectionResult): string {
  const { title, method, notes } = section
  return [
    '\n',
    styled('bold', renderParagraph(title)),
    styled('dim', renderParagraph(method)),
    renderRows(section),
    ...notes.map((note) => renderParagraph(note, '- ')),
  ].join('')
}

export function renderRatios(ratios: readonly RatioResult[], isQuick: boolean): string {
  if (ratios.length === 0) return ''
  const columns = [{ heading: 'claim' }, { heading: 'is', isNumber: true }, { heading: 'bound', isNumber: true }]
  const rows = ratios.map((ratio) => [ratio.name, formatRatio(ratio), formatBound(ratio), markOf(ratio, isQuick)])
  const remark = isQuick
    ? styled('dim', line('A quick run: that it works is shown, and no number means anything.'))
    : ''
  return `\n${renderTable([...columns, { heading: 'met' }], rows)}${remark}`
}

export function renderEnd({ scenarios, answersChecked, sandboxesSeen, startedAt, endedAt }: Result): string {
  const failures = scenarios.flatMap(({ name, failures }) =>
    failures.map(({ run, message }) =>
      styled('red', renderParagraph(`${name} failed in run ${run}: ${message}`, '✗ ')),
    ),
  )
  const what = `${answersChecked} answers, all right, from ${sandboxesSeen} sandboxes of ours, none seen twice`
  const elapsed = formatElapsed(Date.parse(endedAt) - Date.parse(startedAt))
  return [...failures, line(`${what}; in ${elapsed}.`)].join('')
}

export function renderPeers(peers: readonly ListedPeer[]): string {
  const columns = [{ heading: 'peer' }, { heading: 'version' }, { heading: 'install with' }]
  return renderTable(
    columns,
    peers.map(({ name, isInstalled, version, install }) => [
      name,
      isInstalled ? (version ?? 'unknown') : 'missing',
      isInstalled ? '' : install,
    ]),
  )
}

/** Of a quick run nothing is claimed. */
export function markOf({ met }: RatioResult, isQuick: boolean): string {
  return isQuick || met === null ? '' : met ? '✓' : '✗'
}

function renderRows({ rows, chart }: SectionResult): string {
  const hasLatency = rows.some(({ latency }) => latency !== undefined)
  const headings = [...new Set(rows.flatMap(({ figures }) => Object.keys(figures ?? {})))]
  const hasMore = rows.some(({ isolated, fresh }) => isolated !== undefined || fresh !== undefined)
  const isStages = chart === 'stages' && hasLatency
  const number = (heading: string): Column => ({ heading, isNumber: true })
  const columns: Column[] = [
    { heading: '' },
    ...(hasLatency ? ['p50', 'p90', 'p99', 'p99.9', 'n'].map(number) : []),
    ...headings.map(number),
    ...(isStages ? [{ heading: 'p50' }] : []),
    ...(hasMore ? [{ heading: 'isolated' }, { heading: 'fresh per call' }] : []),
  ]
  const longestUs = Math.max(...rows.map(({ latency }) => latency?.p50Us ?? 0))
  const body = rows.map((row) => [
    row.name,
    ...(hasLatency ? latencyCells(row) : []),
    ...headings.map((heading) => {
      const figure = row.figures?.[heading]
      return figure === undefined ? '' : formatFigure(figure)
    }),
    ...(isStages ? [bar((row.latency?.p50Us ?? 0) / longestUs)] : []),
    ...(hasMore ? [row.isolated ?? '', row.fresh ?? ''] : []),
  ])
  return renderTable(columns, body)
}

function latencyCells({ latency }: RowResult): string[] {
  if (latency === undefined) return ['', '', '', '', '']
  const { p50, p90, p99, p999 } = percentilesOf(latency)
  return [p50, p90, p99, p999, latency.count.toLocaleString('en')]
}

function bar(part: number): string {
  return Number.isFinite(part) ? '█'.repeat(Math.round(part * BAR_WIDTH)) : ''
}
