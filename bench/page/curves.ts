// Latency by percentile, from the median to the slowest calls: what a tail looks like, and where it begins. Each further
// nine takes the same room, since each is ten times as rare.
import type { RowResult } from '../result.ts'
import { type Markup, markup } from './markup.ts'
import { logarithmic } from './scale.ts'
import { formatTick, isOurs } from './strips.ts'

const WIDTH = 1000
const HEIGHT = 330
const FRAME = { left: 62, right: 270, top: 12, bottom: 40 }
const LINE_HEIGHT = 14
const LABEL_CHARACTERS = 40
/** The slowest in ten thousand. */
const NINES_MAX = 4
/** Fewer calls than that have no tail to draw. */
const CALLS_MIN = 100
/** More lines than that are told apart by nobody. */
const ROWS_MAX = 12
const DASHES = ['', '7 3', '2 3', '9 3 2 3', '4 2', '12 4']

interface Curve {
  readonly name: string
  readonly points: readonly (readonly [x: number, y: number])[]
  readonly dash: string
}

/** Nothing where too little is known. */
export function drawCurves(rows: readonly RowResult[]): Markup | undefined {
  const known = rows.flatMap(({ name, latency }) => (latency && latency.count >= CALLS_MIN ? [{ name, latency }] : []))
  if (known.length < 2 || known.length > ROWS_MAX) return
  const nines = Math.max(2, ...known.map(({ latency }) => Math.min(NINES_MAX, Math.log10(latency.count))))
  const scale = logarithmic(known.flatMap(({ latency }) => latency.distribution.map(([, us]) => us)))
  const right = WIDTH - FRAME.right
  const x = (percentile: number, count = 1) => FRAME.left + (rarityOf(percentile, count) / nines) * (right - FRAME.left)
  const y = (us: number) => HEIGHT - FRAME.bottom - scale.at(us) * (HEIGHT - FRAME.bottom - FRAME.top)
  const curves = known.map(({ name, latency }, index): Curve => {
    const { count, distribution } = latency
    const seen = distribution.filter(([percentile]) => rarityOf(percentile, count) <= nines)
    const points = seen.map(([percentile, us]) => [x(percentile, count), y(us)] as const)
    return { name, points, dash: DASHES[index % DASHES.length] ?? '' }
  })
  const percentiles = [0, 50, 90, 99, 99.9, 99.99].filter((one) => -Math.log10(1 - one / 100) <= nines + 0.01)
  return markup`<svg class="curves" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="Latency by percentile, both axes logarithmic">
${scale.ticks.map((tick) => markup`<line x1="${FRAME.left}" x2="${right}" y1="${y(tick)}" y2="${y(tick)}" class="grid"/><text x="${FRAME.left - 8}" y="${y(tick) + 4}" text-anchor="end">${formatTick(tick)}</text>`)}
${percentiles.map((one) => markup`<line x1="${x(one)}" x2="${x(one)}" y1="${FRAME.top}" y2="${HEIGHT - FRAME.bottom}" class="grid"/><text x="${x(one)}" y="${HEIGHT - FRAME.bottom + 17}" text-anchor="middle">${one === 0 ? 'fastest' : `p${one}`}</text>`)}
<text x="${(FRAME.left + right) / 2}" y="${HEIGHT - 6}" text-anchor="middle" class="faint">part of the calls that took no longer</text>
${curves.toSorted((a, b) => Number(isOurs(a.name)) - Number(isOurs(b.name))).map(drawCurve)}
${drawLabels(curves, right)}</svg>`
}

/** How many nines; the slowest of all is one in as many as there are. */
function rarityOf(percentile: number, count: number): number {
  return percentile === 100 ? Math.log10(count) : -Math.log10(1 - percentile / 100)
}

function drawCurve({ name, points, dash }: Curve): Markup {
  const path = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(' ')
  return markup`<polyline points="${path}" class="${isOurs(name) ? 'curve ours' : 'curve'}" stroke-dasharray="${dash}"/>
`
}

/** At the ends of their lines, moved apart where they would lie upon each other. */
function drawLabels(curves: readonly Curve[], right: number): Markup[] {
  const wanted = curves
    .map((curve) => ({ ...curve, end: curve.points.at(-1) ?? [right, 0], lines: foldName(curve.name) }))
    .toSorted((a, b) => a.end[1] - b.end[1])
  const total = wanted.reduce((lines, label) => lines + label.lines.length, 0) * LINE_HEIGHT
  let free = FRAME.top
  let left = total
  return wanted.map(({ name, end, dash, lines }) => {
    const height = lines.length * LINE_HEIGHT
    // As near as those above allow, and leaving room for those below.
    const top = Math.max(free, Math.min(end[1] - height / 2, HEIGHT - left))
    free = top + height
    left -= height
    const middle = top + height / 2
    const kind = isOurs(name) ? 'ours' : ''
    const texts = lines.map(
      (text, index) =>
        markup`<text x="${right + 48}" y="${top + 11 + index * LINE_HEIGHT}" class="${kind}">${text}</text>`,
    )
    return markup`<polyline points="${end[0]},${end[1]} ${right + 12},${middle}" class="lead"/>
<line x1="${right + 14}" x2="${right + 42}" y1="${middle}" y2="${middle}" class="curve ${kind}" stroke-dasharray="${dash}"/>${texts}`
  })
}

function foldName(name: string): string[] {
  if (name.length <= LABEL_CHARACTERS) return [name]
  const space = name.lastIndexOf(' ', LABEL_CHARACTERS)
  const cut = space > 0 ? space : LABEL_CHARACTERS
  return [name.slice(0, cut), ...foldName(name.slice(cut).trim())]
}
