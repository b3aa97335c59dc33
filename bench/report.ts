// What a run looks like on a terminal, and as JSON.
import { styleText } from 'node:util'
import type { Host } from './host.ts'
import type { Ratio, Row, Section } from './scenario.ts'

export interface Report {
  readonly version: 1
  readonly startedAt: string
  readonly isQuick: boolean
  readonly host: Host
  readonly scenarios: readonly { readonly name: string; readonly sections: readonly Section[] }[]
  /** Of all scenarios. */
  readonly ratios: readonly Ratio[]
  /** Each answer was compared with its payload, and each sandbox's id with all before it. */
  readonly answersChecked: number
  readonly sandboxesSeen: number
}

type Style = Parameters<typeof styleText>[0]

export function renderHost(host: Host): string {
  const gib = (host.memoryBytes / 2 ** 30).toFixed(0)
  const facts = [
    `Linux ${host.kernel}`,
    `${host.cpus} × ${host.cpuModel}${host.isVirtual ? ' (virtual)' : ''}`,
    `${gib} GiB`,
    `cgroups ${host.cgroups}`,
    `governor ${host.governor ?? 'unknown'}`,
    `Node ${host.node}`,
    `load ${host.load.toFixed(2)}`,
  ]
  return [facts.join(', '), ...host.warnings.map((text) => styled('yellow', `! ${text}`))].map(line).join('')
}

export function renderSection({ title, method, rows, notes }: Section): string {
  const hasMore = rows.some(({ isolated }) => isolated !== undefined)
  const heading = ['', 'p50', 'p90', 'p99', 'n', ...(hasMore ? ['isolated', 'fresh per call'] : [])]
  const body = rows.map((row) => [...cellsOf(row), ...(hasMore ? [row.isolated ?? '', row.fresh ?? ''] : [])])
  return [
    '\n',
    line(styled('bold', title)),
    line(styled('dim', method)),
    table(heading, body, [1, 2, 3, 4]),
    ...notes.map((note) => line(`- ${note}`)),
  ].join('')
}

export function renderRatios(ratios: readonly Ratio[], isQuick: boolean): string {
  const rows = ratios.map(({ name, value, bound, met }) => [
    name,
    value?.toFixed(2) ?? 'unknown',
    bound === null ? '' : `≤ ${bound}`,
    isQuick || met === null ? '' : met ? '✓' : '✗',
  ])
  const remark = isQuick
    ? line(styled('dim', 'A quick run: that it works is shown, and no number means anything.'))
    : ''
  return `\n${table(['', 'is', 'bound', 'met'], rows, [1, 2])}${remark}`
}

function cellsOf({ name, latency }: Row): string[] {
  const { p50Us, p90Us, p99Us, count } = latency
  return [name, duration(p50Us), duration(p90Us), duration(p99Us), `${count}`]
}

/** Three digits at least, in the unit a person would say. */
function duration(us: number): string {
  if (us < 100) return `${us.toFixed(1)} µs`
  return us < 1000 ? `${us.toFixed(0)} µs` : `${(us / 1000).toFixed(us < 100_000 ? 2 : 0)} ms`
}

function table(
  heading: readonly string[],
  rows: readonly (readonly string[])[],
  toTheRight: readonly number[],
): string {
  const widths = heading.map((text, column) => Math.max(text.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const render = (row: readonly string[]) =>
    row
      .map((cell, column) =>
        toTheRight.includes(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd()
  return [styled('underline', render(heading)), ...rows.map(render)].map(line).join('')
}

function styled(format: Style, text: string): string {
  return styleText(format, text, { stream: process.stdout })
}

function line(text: string): string {
  return `${text}\n`
}
