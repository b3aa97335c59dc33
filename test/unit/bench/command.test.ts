// What the benchmark's command line asks for, and what it refuses.
import { describe, expect, it } from 'vitest'
import { parseCommand, UsageError, usage } from '../../../bench/command.ts'

const SCENARIOS = ['lease', 'http', 'kill']
const parse = (...args: string[]) => parseCommand(args, SCENARIOS)
const whole = { kind: 'run', scenarios: SCENARIOS, isQuick: false, runs: 1, json: undefined, html: undefined }

describe('parseCommand', () => {
  it('runs everything once when nothing is asked for', () => expect(parse()).toEqual(whole))

  it('runs what is asked for, once each, in the order of the list', () => {
    expect(parse('kill', 'lease', 'kill')).toEqual({ ...whole, scenarios: ['lease', 'kill'] })
  })

  it('takes its options anywhere', () => {
    const expected = { kind: 'run', scenarios: ['http'], isQuick: true, runs: 5, json: 'a.json', html: 'a.html' }
    expect(parse('--quick', '--runs', '5', 'http', '--json=a.json', '--html', 'a.html')).toEqual(expected)
  })

  it('compares two results', () => {
    const files = { kind: 'compare', before: 'a.json', after: 'b.json' }
    expect(parse('compare', 'a.json', 'b.json')).toEqual({ ...files, asJson: false })
    expect(parse('compare', '--json', 'a.json', 'b.json')).toEqual({ ...files, asJson: true })
  })

  it('lists and installs peers', () => {
    expect(parse('peers')).toEqual({ kind: 'peers', install: false })
    expect(parse('peers', '--install')).toEqual({ kind: 'peers', install: true })
  })

  it.each([['--help'], ['-h'], ['compare', '--help'], ['peers', '-h'], ['lease', '-h']])('helps: %s %s', (...args) =>
    expect(parse(...args.filter((arg) => arg !== undefined))).toEqual({ kind: 'help' }),
  )

  it.each([
    [['speed'], '"speed" is no scenario'],
    [['lease', 'compare'], '"compare" is no scenario'],
    [['--fast'], '--fast'],
    [['--runs', '0'], '--runs is a number'],
    [['--runs', '-1'], '--runs'],
    [['--runs', '1.5'], '--runs is a number'],
    [['--runs', '100'], '--runs is a number'],
    [['--runs', ''], '--runs is a number'],
    [['--runs'], '--runs'],
    [['--json'], '--json'],
    [['--json', ''], '--json is the name of a file'],
    [['--html='], '--html is the name of a file'],
    [['--json', 'a', '--html', 'a'], 'the same file'],
    [['--quick=yes'], '--quick'],
    [['compare'], 'takes two results, not 0'],
    [['compare', 'a.json'], 'takes two results, not 1'],
    [['compare', 'a', 'b', 'c'], 'takes two results, not 3'],
    [['compare', 'a', 'b', '--quick'], '--quick'],
    [['peers', 'bwrap'], 'bwrap'],
  ])('refuses %j', (args, message) => {
    expect(() => parse(...args)).toThrow(UsageError)
    expect(() => parse(...args)).toThrow(message)
  })
})

describe('usage', () => {
  it('names each scenario and each option', () => {
    const text = usage([
      { name: 'lease', help: 'what a call costs' },
      { name: 'node-peers', help: 'others' },
    ])
    expect(text).toContain('  lease       what a call costs\n  node-peers  others\n')
    for (const option of ['--quick', '--runs', '--json', '--html', 'compare', 'peers']) expect(text).toContain(option)
  })
})
