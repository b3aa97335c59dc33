// One page that needs nothing else: what was claimed and whether it holds, then each section as a picture and as a table.
import { formatElapsed, formatFigure, percentilesOf } from './format.ts'
import { factsOf, peersOf } from './host.ts'
import { drawClaims } from './page/claims.ts'
import { drawCurves } from './page/curves.ts'
import { Markup, markup } from './page/markup.ts'
import { drawFigures, drawKey, drawStages, drawStrips, isOurs } from './page/strips.ts'
import { STYLE } from './page/style.ts'
import type { Result, RowResult, SectionResult } from './result.ts'

export function renderPage(result: Result): string {
  const { scenarios, host, mayfly, ratios } = result
  const peers = peersOf(host)
  const sections = scenarios.flatMap((scenario) => scenario.sections)
  const page = markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mayfly ${mayfly}: what a call costs</title>
<style>${new Markup(STYLE)}</style>
</head>
<body>
<header>
<h1>What a call costs</h1>
<p>${summaryOf(result)}</p>
<p class="host">${factsOf(host).join(' · ')}${peers.length > 0 && markup`<br>Peers: ${peers.join(' · ')}`}</p>
${renderWarnings(result)}
<nav aria-label="Sections"><ul>${sections.map(({ id, title }) => markup`<li><a href="#${id}">${title}</a></li>`)}</ul></nav>
</header>
<main>
${ratios.length > 0 && markup`<h2>Claims</h2>${drawClaims(result)}`}
${drawKey()}
${scenarios.map(({ name, sections }) => sections.length > 0 && markup`<h2>${name}</h2>${sections.map(renderSection)}`)}
</main>
</body>
</html>
`
  return page.text
}

function summaryOf({
  mayfly,
  startedAt,
  endedAt,
  isQuick,
  runs,
  ratios,
  answersChecked,
  sandboxesSeen,
}: Result): string {
  const claims = ratios.filter(({ met }) => met !== null)
  const held = claims.filter(({ met }) => met === true).length
  const elapsed = formatElapsed(Date.parse(endedAt) - Date.parse(startedAt))
  return [
    `Mayfly ${mayfly}, ${startedAt.slice(0, 10)}, ${runs === 1 ? 'one run' : `${runs} runs, of which ratios and figures are medians`}, ${elapsed}.`,
    isQuick
      ? 'A quick run: that it works is shown, and no number means anything.'
      : `${held} of ${claims.length} claims hold.`,
    `${answersChecked.toLocaleString('en')} answers were checked, all right, from ${sandboxesSeen.toLocaleString('en')} sandboxes, none seen twice.`,
  ].join(' ')
}

function renderWarnings({ host, scenarios }: Result): Markup | undefined {
  const failures = scenarios.flatMap(({ name, failures }) =>
    failures.map(({ run, message }) => `${name} failed in run ${run}: ${message}`),
  )
  const warnings = [...failures, ...host.warnings]
  if (warnings.length === 0) return
  return markup`<ul class="warnings">${warnings.map((text) => markup`<li>${text}</li>`)}</ul>`
}

function renderSection(section: SectionResult): Markup {
  const { id, title, method, rows, notes } = section
  return markup`<section id="${id}"><h3>${title}</h3>
<p class="method">${method}</p>
<div class="${rows.some(({ name }) => isOurs(name)) ? 'compared' : 'own'}">${drawSection(section)}</div>
${renderRows(rows)}
${notes.length > 0 && markup`<ul class="notes">${notes.map((note) => markup`<li>${note}</li>`)}</ul>`}
</section>
`
}

function drawSection({ chart, rows }: SectionResult): Markup {
  const hasLatency = rows.some(({ latency }) => latency !== undefined)
  const hasFigures = rows.some(({ figures }) => figures !== undefined)
  const isStages = chart === 'stages'
  return markup`${hasLatency && (isStages ? drawStages(rows) : drawStrips(rows))}
${chart === 'latency' && markup`<div class="scroll">${drawCurves(rows)}</div>`}
${hasFigures && drawFigures(rows)}`
}

function renderRows(rows: readonly RowResult[]): Markup {
  const hasLatency = rows.some(({ latency }) => latency !== undefined)
  const hasMore = rows.some(({ isolated, fresh }) => isolated !== undefined || fresh !== undefined)
  const headings = [...new Set(rows.flatMap(({ figures }) => Object.keys(figures ?? {})))]
  const numbers = [...(hasLatency ? ['p50', 'p90', 'p99', 'p99.9', 'n'] : []), ...headings]
  const words = hasMore ? ['isolated', 'fresh per call'] : []
  const body = rows.map((row) => {
    const cells = [
      ...(hasLatency ? latencyCells(row) : []),
      ...headings.map((heading) => {
        const figure = row.figures?.[heading]
        return figure === undefined ? '' : formatFigure(figure)
      }),
    ]
    return markup`<tr class="${isOurs(row.name) ? 'ours' : ''}"><th scope="row">${row.name}</th>${cells.map((cell) => markup`<td class="number">${cell}</td>`)}${
      hasMore && [row.isolated, row.fresh].map((cell) => markup`<td class="words">${cell}</td>`)
    }</tr>
`
  })
  return markup`<div class="scroll"><table><thead><tr><th scope="col"><span class="faint">what</span></th>${numbers.map((heading) => markup`<th scope="col" class="number">${heading}</th>`)}${words.map((heading) => markup`<th scope="col" class="words">${heading}</th>`)}</tr></thead><tbody>
${body}</tbody></table></div>`
}

function latencyCells({ latency }: RowResult): string[] {
  if (latency === undefined) return ['', '', '', '', '']
  const { p50, p90, p99, p999 } = percentilesOf(latency)
  return [p50, p90, p99, p999, latency.count.toLocaleString('en')]
}
