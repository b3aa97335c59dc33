// What a failing scenario, a signal and several runs do to the others.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Bed } from '../../../bench/bed.ts'
import { Interrupted } from '../../../bench/interruption.ts'
import { lower } from '../../../bench/measure.ts'
import type { SectionResult } from '../../../bench/result.ts'
import { runScenarios } from '../../../bench/run.ts'
import type { Context, Scenario } from '../../../bench/scenario.ts'
import { sectionOf } from './_result.ts'

const folder = mkdtempSync(join(tmpdir(), 'mayfly run-'))
/** These scenarios call nothing, so that they need no more of it. */
const bed = { folder } as Bed
const idle = { check() {} }
let calls: string[] = []

afterAll(() => rmSync(folder, { recursive: true, force: true }))
beforeEach(() => {
  calls = []
  vi.spyOn(process.stderr, 'write').mockReturnValue(true)
})

function scenario(name: string, value: (run: number, context: Context) => number): Scenario {
  let runs = 0
  return {
    name,
    help: '',
    async run(context) {
      calls.push(name)
      runs += 1
      return [sectionOf([{ name: 'x', figures: { value: lower(value(runs, context)) } }], { id: name })]
    },
  }
}

const failing = scenario('failing', () => {
  throw new Error('it rained')
})

function run(scenarios: Scenario[], runs: number, interruption = idle) {
  const heard: SectionResult[] = []
  const hearers = { onHost() {}, onSection: (section: SectionResult) => heard.push(section) }
  return { heard, results: runScenarios({ scenarios, isQuick: false, runs }, interruption, bed, hearers) }
}

describe('runScenarios', () => {
  it('names a scenario that fails and runs the others', async () => {
    const { heard, results } = run([failing, scenario('next', () => 1)], 2)
    expect(await results).toEqual([
      {
        name: 'failing',
        durationsMs: [],
        failures: [
          { run: 1, message: 'it rained' },
          { run: 2, message: 'it rained' },
        ],
        sections: [],
      },
      expect.objectContaining({ name: 'next', failures: [], durationsMs: [expect.any(Number), expect.any(Number)] }),
    ])
    expect(heard.map(({ id }) => id)).toEqual(['next'])
  })

  it('fails a scenario that measured no number', async () => {
    const { results } = run([scenario('void', () => Number.NaN)], 1)
    expect((await results)[0]).toMatchObject({ failures: [{ run: 1, message: expect.stringContaining('NaN') }] })
  })

  it('repeats all of them run by run and merges what they say', async () => {
    const { heard, results } = run([scenario('a', (run) => run), scenario('b', (run) => run * 10)], 3)
    const [a, b] = await results
    expect(calls).toEqual(['a', 'b', 'a', 'b', 'a', 'b'])
    expect(a?.sections[0]?.rows[0]?.figures?.['value']).toMatchObject({ value: 2, runs: [1, 2, 3] })
    expect(b?.sections[0]?.rows[0]?.figures?.['value']).toMatchObject({ value: 20, runs: [10, 20, 30] })
    expect(heard).toEqual([a, b].flatMap((one) => one?.sections ?? []))
  })

  it('says each section at once when there is one run', async () => {
    let heardBefore = 0
    const { heard, results } = run([scenario('a', () => 1), scenario('b', () => (heardBefore = heard.length))], 1)
    await results
    expect(heardBefore).toBe(1)
  })

  it('ends at the next step after a signal, and lets the scenario clean up', async () => {
    let isCleaned = false
    let hasCome = false
    const interruption = {
      check() {
        if (hasCome) throw new Interrupted('SIGINT')
      },
    }
    const stuck = scenario('stuck', (_, { progress }) => {
      try {
        progress('steps', 1, 2)
        hasCome = true
        progress('steps', 2, 2)
        return 1
      } finally {
        isCleaned = true
      }
    })
    await expect(run([stuck, scenario('next', () => 1)], 1, interruption).results).rejects.toMatchObject({
      exitCode: 130,
    })
    expect(isCleaned).toBe(true)
    expect(calls).toEqual(['stuck'])
  })

  it('takes what a signal broke for no failure', async () => {
    let isFirst = true
    const interruption = {
      check() {
        if (!isFirst) throw new Interrupted('SIGTERM')
        isFirst = false
      },
    }
    await expect(run([failing], 1, interruption).results).rejects.toMatchObject({ exitCode: 143 })
  })

  it('remembers how long each took, for the next time', async () => {
    await run([scenario('a', () => 1), failing], 1).results
    const durations = JSON.parse(readFileSync(join(folder, 'durations.json'), 'utf8')) as object
    expect(Object.keys(durations)).toContain('a')
    expect(Object.keys(durations)).not.toContain('failing')
  })
})
