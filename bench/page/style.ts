// How the page looks: on a screen by day and by night, narrow and wide, and on paper without colour.

export const STYLE = `
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1c1e21; --faint: #5d646d; --rule: #d9dce0; --panel: #f3f4f5;
  --ours: #0b5fa5; --others: #9aa3ad; --warn: #8a5200; --warn-panel: #fff4df; --good: #1b6e35; --bad: #a8261d }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --ink: #e6e8ea; --faint: #9ba3ac; --rule: #33383e;
  --panel: #1e2125; --ours: #5eb1f2; --others: #6c757f; --warn: #f0b95b; --warn-panel: #2b2415; --good: #6fcf8a; --bad: #ff8a80 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; font-variant-numeric: tabular-nums }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem }
h2 { font-size: 1.35rem; margin: 3.2rem 0 .2rem; padding-top: .7rem; border-top: 2px solid var(--ink) }
h3 { font-size: 1.1rem; margin: 2.2rem 0 .2rem }
h4 { font-size: .88rem; margin: 0 0 .3rem }
p { margin: .3rem 0 .7rem; max-width: 62rem }
small, .method, .key, .faint { color: var(--faint); font-weight: normal }
.method, .notes, .key { font-size: .86rem }
a { color: inherit; text-decoration-color: var(--others) }
nav ul { columns: 2 26rem; padding: 0; margin: .6rem 0 0; list-style: none; font-size: .88rem }
nav li { break-inside: avoid; padding: .12rem 0 }
.host { font-size: .88rem; color: var(--faint) }
.warnings { margin: 1rem 0; padding: .7rem 1rem .7rem 2rem; border-left: 4px solid var(--warn); background: var(--warn-panel); color: var(--ink) }
.notes { margin: .5rem 0; padding-left: 1.2rem; max-width: 62rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; margin: .8rem 0; font-size: .86rem; line-height: 1.35 }
th, td { text-align: left; padding: .32rem .7rem .32rem 0; border-bottom: 1px solid var(--rule); vertical-align: top }
th { font-weight: 600 }
tbody th { font-weight: normal; min-width: 11rem }
thead th { border-bottom-color: var(--ink); vertical-align: bottom }
.number { text-align: right; white-space: nowrap }
tr.ours th { font-weight: 600; color: var(--ours) }
.words { min-width: 8rem; padding-left: .6rem }
.claims td, .claims tbody th { vertical-align: middle }
.claims .picture { width: 34% ; min-width: 9rem }
.met { color: var(--good); font-weight: 600; white-space: nowrap } .missed { color: var(--bad); font-weight: 600; white-space: nowrap }
.chart { margin: 1rem 0 .6rem; break-inside: avoid; display: grid; gap: 0 .9rem; font-size: .88rem;
  grid-template-columns: fit-content(17rem) minmax(6rem, 1fr) minmax(5.5rem, max-content) }
.chart > * { grid-column: 1 / -1 }
.row { display: grid; grid-template-columns: subgrid; align-items: center }
.row > span:first-child { text-align: right; line-height: 1.2; padding: .1rem 0 }
.row > span:last-child { white-space: nowrap }
.small { grid-template-columns: fit-content(11rem) minmax(4rem, 1fr) minmax(3rem, max-content); font-size: .82rem; align-content: start }
.row.ours > span { font-weight: 600; color: var(--ours) }
.axis, .axis text { color: var(--faint); font-size: .78rem }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); gap: .4rem 2.2rem }
svg { display: block; width: 100%; overflow: visible } .key svg { display: inline-block; width: 120px; vertical-align: -2px; margin-right: .3rem }
svg text { fill: currentColor; font-size: 12px }
.fill { fill: var(--others) } .ours .fill, .own .fill, .stages .fill, .fill.ours { fill: var(--ours) } .far { opacity: .75 }
.tail { stroke: var(--others); stroke-width: 1.5 } .ours .tail, .own .tail, .stages .tail { stroke: var(--ours) }
.ring { stroke: var(--paper); stroke-width: 1.5 }
.grid { stroke: var(--rule); stroke-width: 1 }
.bound { stroke: var(--ink); stroke-width: 2 } .range { stroke: var(--ink); stroke-width: 1.2 }
.curve { fill: none; stroke: var(--faint); stroke-width: 1.6 } .curve.ours { stroke: var(--ours); stroke-width: 2.8 }
.lead { fill: none; stroke: var(--rule) } text.ours { fill: var(--ours); font-weight: 600 } text.faint { fill: var(--faint) }
.stack { margin: .2rem 0 .6rem } .stack text { font-size: 11px }
.part-0 rect { fill: var(--ours) } .part-0 text { fill: var(--paper) } .part-1 rect { fill: var(--rule) } .stack rect { stroke: var(--paper) }
@media (max-width: 44rem) { body { padding: 1rem .8rem } .curves { min-width: 46rem } .chart, .small { grid-template-columns: fit-content(7rem) 1fr max-content; gap: 0 .5rem } .stack text, .tick-1, .claims .picture, .claims th:nth-child(2) { display: none } }
@media print { :root { --paper: #fff; --ink: #000; --faint: #333; --rule: #c4c4c4; --panel: #fff; --ours: #10365c; --others: #a0a0a0;
  --warn: #000; --warn-panel: #fff; --good: #000; --bad: #000; color-scheme: light }
  @page { margin: 14mm 12mm }
  body { max-width: none; padding: 0; font-size: 10.5px } nav { display: none } a { text-decoration: none }
  h2, h3, .method { break-after: avoid } tr, .chart, .curves, .warnings, .method { break-inside: avoid }
  .scroll { overflow: visible } .words { min-width: 6rem } .charts { grid-template-columns: 1fr 1fr }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact } }
`
