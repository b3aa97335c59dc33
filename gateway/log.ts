// How a line gets to stderr: JSON for machines, one short line for a person at a terminal. What a tenant sent stays
// inside a JSON string either way, so it cannot forge a line or move the cursor.
import { type Logger, pino } from 'pino'
import type { Config } from '../contract/config.ts'

export type Log = Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>

const STDERR = 2
const LEVELS: Readonly<Record<number, string>> = { 20: 'debug', 30: 'info', 40: 'warn', 50: 'error' }

export function createLog(level: Config['logLevel']): Log {
  // Written at once: the last line before a crash is the one that is needed.
  const stderr = pino.destination({ dest: STDERR, sync: true })
  const terminal = { write: (line: string) => stderr.write(lineForTerminal(line)) }
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime }
  return process.stderr.isTTY ? pino(options, terminal) : pino(options, stderr)
}

export function lineForTerminal(json: string): string {
  const { level, time, msg, ...fields } = JSON.parse(json) as { level: number; time: string; msg?: string }
  const details = Object.entries(fields).map(([name, value]) => `${name}=${JSON.stringify(value)}`)
  return `${[time.slice(11, 23), (LEVELS[level] ?? '').padEnd(5), msg ?? '', ...details].join(' ')}\n`
}
