// mayfly doctor: what this machine's kernel offers, which layer of the isolation is on, and a remedy for each gap. The
// launcher asks the kernel; here its answers are only shown.
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { PlatformError } from '../../contract/errors.ts'
import type { Command } from '../command.ts'
import { printable, style, table } from '../output.ts'

const LAUNCHER = fileURLToPath(new URL('../../native/bin/mayfly-launcher', import.meta.url))

interface Check {
  readonly name: string
  readonly status: 'on' | 'degraded' | 'missing'
  readonly required: boolean
  readonly detail: string
  readonly remedy?: string | null
}

interface Report {
  readonly checks: readonly Check[]
}

export const doctor: Command = {
  operands: '',
  summary: 'say what this machine offers, which layer is on, and what to do about a gap',
  example: 'mayfly doctor --json',
  arity: [0, 0],
  async run({ config, output }) {
    const report = probe(config)
    const isFit = report.checks.every(({ required, status }) => !required || status !== 'missing')
    output.show({ isFit, ...report }, () => textOf(report, isFit))
    return isFit ? 0 : 1
  },
}

function probe({ home, cgroup, uidBase }: { home: string; cgroup: string; uidBase: number }): Report {
  const args = ['--probe', '--home', home, '--cgroup', cgroup, '--uid-base', String(uidBase)]
  const { status, error, stdout, stderr } = spawnSync(LAUNCHER, args, { encoding: 'utf8', timeout: 30_000 })
  if (error !== undefined) {
    const { code } = error as NodeJS.ErrnoException
    const remedy = code === 'ENOENT' ? 'is not there; npm run setup builds it' : `cannot be run: ${error.message}`
    throw new PlatformError('HOST_UNFIT', `${LAUNCHER} ${remedy}`, { cause: error })
  }
  try {
    return JSON.parse(stdout) as Report
  } catch (cause) {
    const said = printable(stderr.trim()) || `exit code ${status}`
    throw new PlatformError('HOST_UNFIT', `the launcher's probe gave no report: ${said}`, { cause })
  }
}

const MARKS = { on: style('green', '✓'), degraded: style('yellow', '!'), missing: style('red', '✗') }

function textOf({ checks }: Report, isFit: boolean): string {
  const rows = checks.map(({ name, status, detail }) => [name, status, detail])
  const [head = '', ...lines] = table(['LAYER', 'STATUS', 'WHAT'], rows).split('\n')
  const marked = lines
    .slice(0, checks.length)
    .map((line, index) => `${MARKS[checks[index]?.status ?? 'missing']} ${line}`)
  const remedies = checks.flatMap(({ name, remedy }) => (remedy ? [`  ${name}: ${printable(remedy)}`] : []))
  const verdict = isFit ? 'This machine can run Mayfly.' : 'This machine cannot run Mayfly as it is.'
  return [`  ${head}`, ...marked, '', ...remedies, ...(remedies.length > 0 ? [''] : []), verdict, ''].join('\n')
}
