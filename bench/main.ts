// The benchmark's command line: runs scenarios one after the other and says whether each claim holds. Exit code 0 when it
// ran and every answer was right, however slow; 1 when not; 2 when the command line was wrong; 130 after Ctrl-C.
import { type Command, parseCommand, UsageError, usage } from './command.ts'
import { compareFiles } from './compare.ts'
import { renderPage } from './html.ts'
import { Interrupted, watchSignals } from './interruption.ts'
import { installPeers, listPeers } from './peers/install.ts'
import { renderEnd, renderHost, renderPeers, renderRatios, renderSection, renderWarnings } from './report.ts'
import { UnreadableError, writeAside } from './result.ts'
import { runPlan } from './run.ts'
import type { Scenario } from './scenario.ts'
import { burst } from './scenarios/burst.ts'
import { http } from './scenarios/http.ts'
import { kill } from './scenarios/kill.ts'
import { lease } from './scenarios/lease.ts'
import { limits } from './scenarios/limits.ts'
import { memory } from './scenarios/memory.ts'
import { nodePeers } from './scenarios/node-peers.ts'
import { refill } from './scenarios/refill.ts'

const SCENARIOS: readonly Scenario[] = [lease, http, limits, burst, refill, memory, kill, nodePeers]

async function main(args: readonly string[]): Promise<number> {
  const command = parseCommand(
    args,
    SCENARIOS.map(({ name }) => name),
  )
  if (command.kind === 'run') return await run(command)
  if (command.kind === 'peers') return await showPeers(command)
  if (command.kind === 'compare') return compare(command)
  say(usage(SCENARIOS))
  return 0
}

async function run({ json, html, isQuick, runs, ...rest }: Extract<Command, { kind: 'run' }>): Promise<number> {
  const scenarios = SCENARIOS.filter(({ name }) => rest.scenarios.includes(name))
  let warned = 0
  const result = await runPlan({ scenarios, isQuick, runs }, watchSignals(), {
    onHost(host) {
      warned = host.warnings.length
      say(renderHost(host))
    },
    onSection: (section) => say(renderSection(section)),
  })
  say(renderRatios(result.ratios, isQuick))
  say(renderWarnings(result.host.warnings.slice(warned)))
  say(renderEnd(result))
  if (json !== undefined) await writeAside(json, `${JSON.stringify(result, null, 2)}\n`)
  if (html !== undefined) await writeAside(html, renderPage(result))
  return result.scenarios.some(({ failures }) => failures.length > 0) ? 1 : 0
}

function compare(files: Extract<Command, { kind: 'compare' }>): number {
  const { text, exitCode } = compareFiles(files)
  say(text)
  return exitCode
}

/** Fails where it was to install and could not. */
async function showPeers({ install }: Extract<Command, { kind: 'peers' }>): Promise<number> {
  if (install) await installPeers((text) => say(`${text}\n`))
  const peers = await listPeers()
  say(renderPeers(peers))
  return install && peers.some(({ isInstalled }) => !isInstalled) ? 1 : 0
}

function say(text: string): void {
  process.stdout.write(text)
}

function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return error.exitCode
  process.stderr.write(`\nbench: ${error instanceof Error ? error.message : String(error)}\n`)
  if (error instanceof UnreadableError) return 2
  if (!(error instanceof UsageError)) return 1
  process.stderr.write(usage(SCENARIOS))
  return 2
}

const exitCode = await main(process.argv.slice(2)).catch(exitCodeOf)
// What did not close would keep this process, or end it with nothing said; a pool that did not has set the code.
process.exit(exitCode === 0 ? process.exitCode : exitCode)
