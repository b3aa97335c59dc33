// Runs scenarios one after the other, as often as asked, and merges what they say. One that fails is named and does not
// keep the others from running.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Bed, openBed } from './bed.ts'
import { describeHost } from './host.ts'
import { Interrupted, type Interruption } from './interruption.ts'
import { checkSections, mergeRuns } from './merge.ts'
import { watchOthers } from './others.ts'
import { listPeers } from './peers/install.ts'
import { Progress } from './progress.ts'
import { type Host, RESULT_VERSION, type Result, type ScenarioResult, type SectionResult } from './result.ts'
import type { Scenario, Section } from './scenario.ts'

export interface Plan {
  readonly scenarios: readonly Scenario[]
  readonly isQuick: boolean
  readonly runs: number
}

/** What can be said before the end. */
export interface Hearers {
  onHost(host: Host): void
  /** With several runs only once all are done. */
  onSection(section: SectionResult): void
}

/** What the runs of one scenario have said so far. */
interface Gathered {
  readonly scenario: Scenario
  readonly durationsMs: number[]
  readonly failures: { run: number; message: string }[]
  readonly runs: (readonly Section[])[]
}

export async function runPlan(plan: Plan, interruption: Interruption, hearers: Hearers): Promise<Result> {
  const startedAt = new Date().toISOString()
  const host = await describeHost(await versionsOfPeers())
  hearers.onHost(host)
  const endWatch = watchOthers()
  const bed = await openBed().catch((error: unknown) => {
    // A signal to the whole group of processes has ended the compiler.
    interruption.check()
    throw error
  })
  const scenarios = await runScenarios(plan, interruption, bed, hearers)
  const ratios = scenarios.flatMap(({ sections }) => sections.flatMap((section) => section.ratios))
  return {
    version: RESULT_VERSION,
    mayfly: versionOfMayfly(),
    startedAt,
    endedAt: new Date().toISOString(),
    isQuick: plan.isQuick,
    runs: plan.runs,
    host: { ...host, warnings: [...host.warnings, ...endWatch()] },
    scenarios,
    ratios,
    answersChecked: bed.checked.answers,
    sandboxesSeen: bed.checked.sandboxes.size,
  }
}

export async function runScenarios(
  plan: Plan,
  interruption: Interruption,
  bed: Bed,
  { onSection }: Hearers,
): Promise<ScenarioResult[]> {
  const gathered = plan.scenarios.map((scenario): Gathered => ({ scenario, durationsMs: [], failures: [], runs: [] }))
  const names = plan.scenarios.map(({ name }) => name)
  const all = Array.from({ length: plan.runs }, () => names).flat()
  const progress = new Progress(all, join(bed.folder, `durations${plan.isQuick ? '-quick' : ''}.json`))
  // Run by run and not scenario by scenario: a machine that drifts then drifts in all of them.
  for (let run = 1; run <= plan.runs; run++) {
    for (const one of gathered) {
      await runOnce(one, run, { bed, isQuick: plan.isQuick, progress, interruption })
      if (plan.runs === 1) mergeRuns(one.runs).forEach(onSection)
    }
  }
  await progress.save()
  const results = gathered.map(({ scenario, runs, ...rest }) => ({
    name: scenario.name,
    ...rest,
    sections: mergeRuns(runs),
  }))
  if (plan.runs > 1) for (const { sections } of results) sections.forEach(onSection)
  return results
}

async function runOnce(
  { scenario, durationsMs, failures, runs }: Gathered,
  run: number,
  { bed, isQuick, progress, interruption }: Means,
): Promise<void> {
  interruption.check()
  progress.begin()
  let isWhole = false
  try {
    const sections = await scenario.run({
      bed,
      isQuick,
      progress(what, done, total) {
        interruption.check()
        progress.say(what, done, total)
      },
    })
    checkSections(sections)
    runs.push(sections)
    isWhole = true
  } catch (error) {
    // What a signal to the whole group of processes broke is no failure of the scenario.
    interruption.check()
    if (error instanceof Interrupted) throw error
    failures.push({ run, message: error instanceof Error ? error.message : String(error) })
  } finally {
    const tookMs = progress.end(isWhole)
    if (isWhole) durationsMs.push(tookMs)
  }
}

interface Means {
  readonly bed: Bed
  readonly isQuick: boolean
  readonly progress: Progress
  readonly interruption: Interruption
}

async function versionsOfPeers(): Promise<Host['peers']> {
  const there = (await listPeers()).filter(({ isInstalled }) => isInstalled)
  return Object.fromEntries(there.map(({ name, version }) => [name, version ?? 'of unknown version']))
}

function versionOfMayfly(): string {
  const text = readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
