// Charts that are read from the left: a name, a strip or a bar, a number. Widths are parts of the whole, so that no text
// is stretched with the window.
import { formatDuration, formatFigure } from '../format.ts'
import type { FigureResult, LatencyResult, RowResult } from '../result.ts'
import { type Markup, markup } from './markup.ts'
import { linear, logarithmic, type Scale } from './scale.ts'

const ROW_HEIGHT = 26
/** At most as wide as that in a page as narrow as paper, as a part of its width. */
const CHARACTER = 1.05
const MIDDLE = ROW_HEIGHT / 2

/** Ours stand out from what they are measured beside. */
export function isOurs(name: string): boolean {
  return /^mayfly\b/i.test(name)
}

/** From the median to the slowest in a thousand, each on the same axis. */
export function drawStrips(rows: readonly RowResult[]): Markup {
  const known = rows.flatMap(({ name, latency }) => (latency ? [{ name, latency }] : []))
  const scale = logarithmic(known.flatMap(({ latency }) => [lowOf(latency), highOf(latency)]))
  return markup`<div class="chart" role="img" aria-label="Latency from the median to the slowest calls, on a logarithmic axis">
<div class="row axis"><span></span>${drawAxis(scale)}<span>p50</span></div>
${known.map(({ name, latency }) => drawRow(name, drawStrip(latency, scale), formatDuration(latency.p50Us)))}
</div>`
}

/** How to read a strip; said once, since there are many. */
export function drawKey(): Markup {
  return markup`<p class="key"><svg width="120" height="14" aria-hidden="true"><line x1="0" x2="120" y1="7" y2="7" class="tail"/><rect x="14" width="66" y="4.5" height="5" class="fill far"/><rect x="14" width="36" y="1" height="12" class="fill"/><circle cx="14" cy="7" r="5" class="fill ring"/></svg>
How to read a latency below: the dot is the median; the bar reaches to p90, the thin bar to p99, the line from the fastest to p99.9, or to the slowest where there are fewer than a thousand calls.</p>`
}

/** Parts of one whole: their medians, and how much of the sum of medians each is. */
export function drawStages(rows: readonly RowResult[]): Markup {
  const known = rows.flatMap(({ name, latency }) => (latency ? [{ name, latency }] : []))
  const sum = known.reduce((us, { latency }) => us + latency.p50Us, 0)
  // What reaches further is cut: one long tail shall not make all bars short.
  const scale = linear([1.4 * Math.max(...known.map(({ latency }) => latency.p50Us))])
  const percent = (us: number) => `${((us / sum) * 100).toFixed(us / sum < 0.1 ? 1 : 0)} %`
  let before = 0
  const parts = known.map(({ name, latency: { p50Us } }, index) => {
    const width = (p50Us / sum) * 100
    const start = (before / sum) * 100
    before += p50Us
    const label =
      name.length * CHARACTER < width &&
      markup`<text x="${start + width / 2}%" y="21" text-anchor="middle">${name}</text>`
    const title = markup`<title>${name}: ${formatDuration(p50Us)}, ${percent(p50Us)}</title>`
    return markup`<g class="part-${index % 2}"><rect x="${start}%" width="${width}%" y="0" height="32">${title}</rect>${label}</g>`
  })
  return markup`<div class="chart stages" role="img" aria-label="Stages, as parts of the whole">
<svg class="stack" height="32" aria-hidden="true">${parts}</svg>
${known.map(({ name, latency }) => drawRow(name, drawStage(latency, scale), `${formatDuration(latency.p50Us)} · ${percent(latency.p50Us)}`))}
<p class="key">the bar is the median, the line reaches to p90; ${formatDuration(sum)} is the sum of medians</p></div>`
}

/** One small chart for each heading, since each has a unit of its own; nothing but zeros is for the table to say. */
export function drawFigures(rows: readonly RowResult[]): Markup {
  const headings = [...new Set(rows.flatMap(({ figures }) => Object.keys(figures ?? {})))].filter((heading) =>
    rows.some(({ figures }) => figures?.[heading]?.runs.some((value) => value !== 0)),
  )
  const charts = headings.map((heading) => {
    const known = rows.flatMap(({ name, figures }) => {
      const figure = figures?.[heading]
      return figure ? [{ name, figure }] : []
    })
    const scale = linear(known.flatMap(({ figure }) => figure.runs))
    const better = known[0]?.figure.better === 'higher' ? 'more is better' : 'less is better'
    return markup`<div class="${headings.length > 1 ? 'chart small' : 'chart'}" role="img" aria-label="${heading}"><h4>${heading} <small>${better}</small></h4>
${known.map(({ name, figure }) => drawRow(name, drawBar(figure, scale), formatFigure(figure)))}</div>`
  })
  return headings.length > 1 ? markup`<div class="charts">${charts}</div>` : markup`${charts}`
}

function drawRow(name: string, picture: Markup, value: string): Markup {
  const kind = isOurs(name) ? 'row ours' : 'row'
  return markup`<div class="${kind}"><span>${name}</span>${picture}<span>${value}</span></div>
`
}

function drawAxis(scale: Scale): Markup {
  const labels = scale.ticks.map((tick, index) => {
    const at = scale.at(tick)
    const anchor = at < 0.01 ? 'start' : at > 0.99 ? 'end' : 'middle'
    return markup`<text x="${at * 100}%" y="16" text-anchor="${anchor}" class="tick-${index % 2}">${formatTick(tick)}</text>`
  })
  return markup`<svg height="${ROW_HEIGHT}" aria-hidden="true">${labels}</svg>`
}

function drawStrip(latency: LatencyResult, scale: Scale): Markup {
  const [low, p50, p90, p99, high] = [lowOf(latency), latency.p50Us, latency.p90Us, latency.p99Us, highOf(latency)].map(
    (us) => scale.at(us) * 100,
  ) as [number, number, number, number, number]
  return markup`<svg height="${ROW_HEIGHT}" aria-hidden="true">${drawGrid(scale)}
<line x1="${low}%" x2="${high}%" y1="${MIDDLE}" y2="${MIDDLE}" class="tail"/>
<rect x="${p50}%" width="${p99 - p50}%" y="${MIDDLE - 2.5}" height="5" class="fill far"/>
<rect x="${p50}%" width="${p90 - p50}%" y="${MIDDLE - 6}" height="12" class="fill"/>
<circle cx="${p50}%" cy="${MIDDLE}" r="5" class="fill ring"/></svg>`
}

function drawStage({ p50Us, p90Us }: LatencyResult, scale: Scale): Markup {
  const [p50, p90] = [scale.at(p50Us) * 100, scale.at(p90Us) * 100]
  return markup`<svg height="${ROW_HEIGHT}" aria-hidden="true">
<line x1="0" x2="${p90}%" y1="${MIDDLE}" y2="${MIDDLE}" class="tail"/>
<rect x="0" width="${p50}%" y="${MIDDLE - 7}" height="14" class="fill"/></svg>`
}

function drawBar({ value, runs }: FigureResult, scale: Scale): Markup {
  const [low, high] = [Math.min(...runs), Math.max(...runs)].map((one) => scale.at(one) * 100)
  const range =
    runs.length > 1 && markup`<line x1="${low}%" x2="${high}%" y1="${MIDDLE}" y2="${MIDDLE}" class="range"/>`
  return markup`<svg height="${ROW_HEIGHT}" aria-hidden="true"><line x1="0" x2="0" y1="0" y2="${ROW_HEIGHT}" class="grid"/>
<rect x="0" width="${scale.at(value) * 100}%" y="${MIDDLE - 7}" height="14" class="fill"/>${range}</svg>`
}

function drawGrid(scale: Scale): Markup[] {
  return scale.ticks.map((tick) => {
    const at = scale.at(tick) * 100
    return markup`<line x1="${at}%" x2="${at}%" y1="0" y2="${ROW_HEIGHT}" class="grid"/>`
  })
}

/** The fastest, as far as the distribution knows it. */
function lowOf({ distribution, p50Us }: LatencyResult): number {
  return distribution[0]?.[1] ?? p50Us
}

function highOf({ count, p999Us, maxUs }: LatencyResult): number {
  return count < 1000 ? maxUs : p999Us
}

/** Round values, so that no digit behind the point is worth its room. */
export function formatTick(us: number): string {
  if (us < 1000) return `${Number(us.toPrecision(1))} µs`
  return us < 1e6 ? `${Number((us / 1000).toPrecision(1))} ms` : `${Number((us / 1e6).toPrecision(1))} s`
}
