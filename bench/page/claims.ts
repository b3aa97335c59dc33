// What is claimed, and whether it holds: a bar that ends before its bound, or not.
import { formatBound, formatRatio } from '../format.ts'
import type { RatioResult, Result } from '../result.ts'
import { type Markup, markup } from './markup.ts'

const HEIGHT = 22
/** The bound stands at the same place in all rows, so that one look down the column tells. */
const BOUND_AT = 0.6

export function drawClaims({ ratios, isQuick }: Result): Markup {
  const claims = ratios.filter(({ bound }) => bound !== null)
  const others = ratios.filter(({ bound }) => bound === null)
  const rows = [...claims, ...others].map((ratio) => {
    const [word, kind] =
      isQuick || ratio.met === null ? ['', ''] : ratio.met ? ['✓ met', 'met'] : ['✗ missed', 'missed']
    return markup`<tr><th scope="row">${ratio.name}</th><td class="picture">${drawClaim(isQuick ? { ...ratio, met: null } : ratio)}</td>
<td class="number">${formatRatio(ratio)}</td><td class="number">${formatBound(ratio)}</td><td class="${kind}">${word}</td></tr>
`
  })
  return markup`<div class="scroll"><table class="claims"><thead><tr><th scope="col">Claim</th><th scope="col"><small>the upright line is the bound</small></th>
<th scope="col" class="number">is</th><th scope="col" class="number">bound</th><th scope="col">met</th></tr></thead><tbody>
${rows}</tbody></table></div>`
}

function drawClaim({ value, bound, runs, met }: RatioResult): Markup | undefined {
  if (value === null || bound === null || bound <= 0) return
  // Beyond the end is at the end: how far a claim is missed by is in the number.
  const at = (one: number) => Math.min(1, Math.max(0, (one / bound) * BOUND_AT)) * 100
  const range =
    runs.length > 1 &&
    markup`<line x1="${at(Math.min(...runs))}%" x2="${at(Math.max(...runs))}%" y1="${HEIGHT / 2}" y2="${HEIGHT / 2}" class="range"/>`
  return markup`<svg height="${HEIGHT}" aria-hidden="true"><rect x="0" width="${at(value)}%" y="5" height="${HEIGHT - 10}" class="${met ? 'fill ours' : 'fill'}"/>
${range}<line x1="${BOUND_AT * 100}%" x2="${BOUND_AT * 100}%" y1="1" y2="${HEIGHT - 1}" class="bound"/></svg>`
}
