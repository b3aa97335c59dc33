// The benchmark's command line: runs scenarios one after the other and says whether each claim holds. Exit code 0 when it
// ran and every answer was right, however slow; 1 when not; 2 when the command line was wrong.
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { openBed } from './bed.ts'
import { describeHost } from './host.ts'
import { type Report, renderHost, renderRatios, renderSection } from './report.ts'
import type { Context, Scenario } from './scenario.ts'
import { kill } from './scenarios/kill.ts'
import { lease } from './scenarios/lease.ts'

const SCENARIOS: readonly Scenario[] = [lease, kill]
/** How often a run says where it is, where nobody watches a terminal. */
const PROGRESS_MS = 5000

const USAGE = `usage: npm run bench -- [SCENARIO…] [--quick] [--json FILE]

${SCENARIOS.map(({ name, help }) => `  ${name.padEnd(8)}${help}`).join('\n')}

  --quick      a smoke run that fails on wrong answers only
  --json FILE  also write what was measured
`

class UsageError extends Error {}

async function main(args: string[]): Promise<void> {
  const { isQuick, json, isHelp, scenarios } = parse(args)
  if (isHelp) return void process.stdout.write(USAGE)
  const host = describeHost()
  process.stdout.write(renderHost(host))
  const startedAt = new Date().toISOString()
  const bed = await openBed()
  const results: Report['scenarios'][number][] = []
  for (const { name, run } of scenarios) {
    const sections = await run({ bed, isQuick, progress: createProgress(name) })
    for (const section of sections) process.stdout.write(renderSection(section))
    results.push({ name, sections })
  }
  const ratios = results.flatMap(({ sections }) => sections.flatMap((section) => section.ratios))
  process.stdout.write(renderRatios(ratios, isQuick))
  const { answers: answersChecked, sandboxes } = bed.checked
  process.stdout.write(
    `${answersChecked} answers, all right, from ${sandboxes.size} sandboxes of ours, none seen twice.\n`,
  )
  const counts = { answersChecked, sandboxesSeen: sandboxes.size }
  const report: Report = { version: 1, startedAt, isQuick, host, scenarios: results, ratios, ...counts }
  if (json !== undefined) await writeFile(json, `${JSON.stringify(report, null, 2)}\n`)
}

function parse(args: string[]) {
  const options = {
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  } as const
  try {
    const { values, positionals } = parseArgs({ args, options, allowPositionals: true })
    const scenarios = positionals.length === 0 ? SCENARIOS : positionals.map(find)
    return { isQuick: values.quick, json: values.json, isHelp: values.help, scenarios }
  } catch (cause) {
    throw new UsageError((cause as Error).message, { cause })
  }
}

function find(name: string): Scenario {
  const scenario = SCENARIOS.find((one) => one.name === name)
  if (scenario === undefined) throw new Error(`${JSON.stringify(name)} is no scenario`)
  return scenario
}

function createProgress(scenario: string): Context['progress'] {
  const { stderr } = process
  let saidAt = performance.now()
  return (what, done, total) => {
    const text = `… ${scenario}: ${what} ${done}/${total}`
    if (stderr.isTTY) stderr.write(done === total ? '\r\x1b[K' : `\r\x1b[K${text}`)
    else if (done === total || performance.now() - saidAt > PROGRESS_MS) {
      saidAt = performance.now()
      stderr.write(`${text}\n`)
    }
  }
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`\nbench: ${error instanceof Error ? error.message : String(error)}\n`)
  if (error instanceof UsageError) process.stderr.write(USAGE)
  process.exitCode = error instanceof UsageError ? 2 : 1
}
// What did not close would keep this process, or end it with nothing said.
process.exit()
