// `npm run test:vm`: runs the suite on Debian's stock kernel with cgroup v2 only, as root and as an ordinary user with
// a delegated subtree. `node test/vm/run.ts -- COMMAND…` runs a command there instead.
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { type Accelerator, boot } from './boot.ts'
import { type Context, PROJECT, step } from './context.ts'
import { compileGuest } from './guest.ts'
import { buildMachine, packJobs, packProject } from './image.ts'
import { fetchPackages, requireTools } from './packages.ts'

const HELP = `usage: node test/vm/run.ts [options] [-- COMMAND ARGUMENT…]

Without a command: the suite of test/vm/suite.ts, as both users.

  --as root|user    only this user (may be given twice; both by default)
  --file PATH       also put this file into the guest, as /job/files/NAME
  --accel tcg|kvm   default: tcg, which is emulation and works everywhere
  --timeout S       kill the guest after that long (default 420)

example: node test/vm/run.ts --as user -- cat /proc/self/cgroup
`
const USERS = ['root', 'user'] as const

/** Emulation is 10 to 25 times slower than the machine under it (measured: node's start, a sandbox's). */
const SLOWNESS: Readonly<Record<Accelerator, number>> = { kvm: 3, tcg: 20 }

interface Options {
  readonly users: readonly string[]
  readonly files: readonly string[]
  readonly command: readonly string[]
  readonly accelerator: Accelerator
  readonly timeoutMs: number
}

function parseOptions(): Options | undefined {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      as: { type: 'string', multiple: true, default: [...USERS] },
      file: { type: 'string', multiple: true, default: [] },
      accel: { type: 'string', default: 'tcg' },
      timeout: { type: 'string', default: '420' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return undefined
  if (!values.as.every((user) => USERS.some((known) => known === user))) throw new Error('--as is root or user')
  if (values.accel !== 'kvm' && values.accel !== 'tcg') throw new Error('--accel is kvm or tcg')
  const timeoutMs = Number(values.timeout) * 1000
  if (!(timeoutMs > 0)) throw new Error('--timeout is a number of seconds')
  return { users: values.as, files: values.file, command: positionals, accelerator: values.accel, timeoutMs }
}

/** A test that hangs fails by itself, so that the others still tell their story. */
const TEST_TIMEOUT_MS = 30_000

/** The suite, reported to the console and, for the summary, to a file. One process: each fork of node costs 0.4 s there. */
const SUITE = [
  ...['node', '--test', '--test-isolation=none', '--test-force-exit', `--test-timeout=${TEST_TIMEOUT_MS}`],
  ...['--test-reporter=spec', '--test-reporter-destination=stdout'],
  ...['--test-reporter=tap', '--test-reporter-destination="$RESULTS/report.tap"'],
  'test/vm/suite.ts',
].join(' ')

const quote = (word: string) => `'${word.replaceAll("'", "'\\''")}'`

/** One shell script per user, named after it: /init runs each as that user. */
async function writeJobs(context: Context, options: Options): Promise<string> {
  const folder = path.join(context.temporary, 'jobs')
  await mkdir(path.join(folder, 'files'), { recursive: true })
  for (const file of options.files) await cp(file, path.join(folder, 'files', path.basename(file)))
  // The guest's userland has no compiler.
  compileGuest(path.join(folder, 'files/limits'))
  const command = options.command.length === 0 ? SUITE : options.command.map(quote).join(' ')
  const environment = [
    `MAYFLY_TEST_SLOWNESS=${SLOWNESS[options.accelerator]}`,
    'MAYFLY_TEST_GUEST=/job/files/limits',
    // To the guest its console is a terminal, whatever reads it here.
    ...(process.stdout.isTTY ? [] : ['NO_COLOR=1']),
  ]
  const script = `export ${environment.join(' ')}\n${command}\n`
  for (const [index, user] of options.users.entries()) await writeFile(path.join(folder, `${index}-${user}.sh`), script)
  return folder
}

/** A line per user. Returns whether every job ended well and, of the suite, ran at least one test. */
async function summarize(results: string, options: Options): Promise<boolean> {
  let passed = true
  for (const [index, user] of options.users.entries()) {
    const job = path.join(results, `${index}-${user}`)
    const exit = Number(await readFile(path.join(job, 'exit'), 'utf8'))
    const report = await readFile(path.join(job, 'report.tap'), 'utf8').catch(() => '')
    const count = (what: string) => Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(report)?.[1] ?? 0)
    const failed = count('fail') + count('cancelled')
    const isCommand = options.command.length > 0
    console.log(
      isCommand
        ? `vm: ${user}: exit status ${exit}`
        : `${user}: ${count('pass')} passed, ${failed} failed, ${count('skipped')} skipped`,
    )
    passed &&= exit === 0 && (isCommand || count('pass') > 0)
  }
  return passed
}

async function main(options: Options, context: Context): Promise<boolean> {
  requireTools()
  await mkdir(context.cache, { recursive: true })
  const machine = await buildMachine(context, await fetchPackages(context))
  const project = await step('pack the project', () => packProject(context))
  const disks = { project, ...(await packJobs(context, await writeJobs(context, options))) }
  console.log(`vm: boot with ${options.accelerator}`)
  const started = performance.now()
  const results = await boot(context, machine, disks, options)
  console.log(`vm: the guest ran for ${((performance.now() - started) / 1000).toFixed(1)} s`)
  return summarize(results, options)
}

const options = parseOptions()
if (options === undefined) {
  console.log(HELP)
  process.exit(0)
}
const stop = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => stop.abort())
const temporary = await mkdtemp(path.join(os.tmpdir(), 'mayfly-vm-'))
try {
  const context = { project: PROJECT, cache: path.join(import.meta.dirname, '.cache'), temporary, signal: stop.signal }
  process.exitCode = (await main(options, context)) ? 0 : 1
} catch (error) {
  console.error(stop.signal.aborted ? 'vm: stopped' : `vm: ${error instanceof Error ? error.message : error}`)
  process.exitCode = stop.signal.aborted ? 130 : 1
} finally {
  stop.abort()
  await rm(temporary, { recursive: true, force: true })
}
