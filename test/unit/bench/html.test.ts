// Whether the page needs nothing else, cannot be broken by what it says, and says what was measured.
import { describe, expect, it } from 'vitest'
import { renderPage } from '../../../bench/html.ts'
import { lower } from '../../../bench/measure.ts'
import { Markup, markup } from '../../../bench/page/markup.ts'
import { linear, logarithmic } from '../../../bench/page/scale.ts'
import type { Result } from '../../../bench/result.ts'
import { atMost } from '../../../bench/scenario.ts'
import { resultOf, sectionOf, tailed } from './_result.ts'

const HOSTILE = `<script src="//evil.example/x.js">alert('&')</script>`

function pageOf(name: string, more: Partial<Result> = {}): string {
  const rows = [
    { name, latency: tailed(1), figures: { [name]: lower(3, name) }, isolated: name, fresh: name },
    { name: 'Mayfly, ready', latency: tailed(2) },
  ]
  const ratios = [atMost(`${name} held`, 1, 1.4), atMost(`${name} broken`, 2, 1.4), atMost('unbounded', 2)]
  const texts = { title: name, method: name, notes: [name] }
  const sections = [
    sectionOf(rows, { id: 'a', ...texts, ratios }),
    sectionOf(rows, { id: 'b', ...texts, chart: 'stages' }),
    sectionOf(rows, { id: 'c', ...texts, chart: 'figures' }),
  ]
  return renderPage(resultOf([sections, sections], more))
}

describe('renderPage', () => {
  it('loads nothing: no script, no address, no file', () => {
    const page = pageOf('plain child')
    expect(page).not.toMatch(/<script|<link|<img|<iframe|<object|@import|url\(|https?:\/\/|\bsrc=/i)
    // Places in the page itself only.
    expect([...page.matchAll(/href="([^"]*)"/g)].map(([, target]) => target)).toEqual(['#a', '#b', '#c'])
  })

  it('escapes whatever it says', () => {
    const { host } = resultOf([])
    const page = pageOf(HOSTILE, {
      mayfly: HOSTILE,
      host: { ...host, kernel: HOSTILE, cpuModel: HOSTILE, peers: { [HOSTILE]: HOSTILE }, warnings: [HOSTILE] },
    })
    expect(page).not.toContain('<script')
    expect(page).toContain('&lt;script src=&quot;//evil.example/x.js&quot;&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;')
    // Each attribute is still what it was: no name has ended one early.
    expect(page).not.toMatch(/aria-label="[^"]*"[^\s/>]/)
  })

  it('closes what it opens', () => {
    const open: string[] = []
    const page = pageOf('a & b').replace(/<style>[\s\S]*?<\/style>/, '')
    for (const [, end, name = '', self] of page.matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*?(\/?)>/g)) {
      if (self === '/' || ['meta', 'br', 'doctype'].includes(name)) continue
      if (end === '') open.push(name)
      else expect(open.pop()).toBe(name)
    }
    expect(open).toEqual([])
  })

  it('gives charts no number that is none', () => {
    const page = pageOf('plain child')
    expect(page).not.toMatch(/NaN|Infinity|undefined|null|\[object/)
    expect(page).not.toMatch(/(?:width|height)="-/)
  })

  it('draws latencies, stages, figures and percentiles, each where it belongs', () => {
    const [, a = '', b = '', c = ''] = pageOf('plain child').split('<section ')
    for (const [part, strips, curves, stages] of [
      [a, true, true, false],
      [b, false, false, true],
      [c, true, false, false],
    ] as const) {
      expect(part.includes('Latency from the median')).toBe(strips)
      expect(part.includes('Latency by percentile')).toBe(curves)
      expect(part.includes('Stages, as parts')).toBe(stages)
      expect(part).toContain('less is better')
      expect(part).toContain('fresh per call')
    }
  })

  it('says which claims hold, and of a quick run nothing', () => {
    const page = pageOf('call')
    expect(page).toContain('1 of 2 claims hold')
    expect(page.match(/✓ met|✗ missed/g)).toEqual(['✓ met', '✗ missed'])
    const quick = pageOf('call', { isQuick: true })
    expect(quick).toContain('no number means anything')
    expect(quick).not.toMatch(/✓|✗|claims hold/)
  })

  it('names what failed and why numbers cannot be trusted', () => {
    const { host, scenarios } = resultOf([[sectionOf([])]])
    const failed = { name: 'refill', durationsMs: [], failures: [{ run: 1, message: 'it rained' }], sections: [] }
    const page = pageOf('call', { host: { ...host, warnings: ['a storm'] }, scenarios: [...scenarios, failed] })
    expect(page).toContain('<li>refill failed in run 1: it rained</li><li>a storm</li>')
  })

  it('stands with nothing measured', () => {
    expect(renderPage(resultOf([]))).toContain('</html>')
  })
})

describe('markup', () => {
  it('escapes text, keeps markup, joins lists and leaves out nothing', () => {
    const inner = markup`<b>${'"a" & \'b\' <c>'}</b>`
    expect(inner.text).toBe('<b>&quot;a&quot; &amp; &#39;b&#39; &lt;c&gt;</b>')
    expect(markup`${inner}${[1, inner, '<']}${false}${undefined}${new Markup('<hr>')}`.text).toBe(
      `${inner.text}1${inner.text}&lt;<hr>`,
    )
  })
})

describe('scales', () => {
  it('name round values in between, and not too many', () => {
    expect(logarithmic([20, 900]).ticks.map(Math.round)).toEqual([20, 50, 100, 200, 500])
    expect(logarithmic([1, 1e9]).ticks.length).toBeLessThanOrEqual(10)
  })

  it('give each doubling the same room, and keep off the frame', () => {
    const { at } = logarithmic([10, 1000])
    expect(at(200) - at(100)).toBeCloseTo(at(40) - at(20))
    expect(at(10)).toBeGreaterThan(0)
    expect(at(1000)).toBeLessThan(1)
    expect([at(0), at(1e9)]).toEqual([0, 1])
  })

  it('begin figures at nothing', () => {
    const { at } = linear([50, 200])
    expect([at(0), at(50), at(200), at(-3), at(999)]).toEqual([0, 0.25, 1, 0, 1])
    expect(linear([0]).at(0)).toBe(0)
  })
})
