// mayfly invoke: sends bytes to a function and prints the bytes it answers; what went wrong goes to stderr.
import { readFile } from 'node:fs/promises'
import type { IncomingHttpHeaders } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { type Answer, errorIn } from '../api.ts'
import { type Command, type Options, UsageError } from '../command.ts'

export const invoke: Command = {
  operands: 'FUNCTION',
  summary: 'call a function with a payload from --data, --file or stdin, and print its result',
  example: "echo 'hello' | mayfly invoke echo --timeout 500ms",
  arity: [1, 1],
  options: {
    data: { type: 'string', short: 'd', help: 'the payload itself' },
    file: { type: 'string', short: 'f', help: 'a file with the payload; - is stdin' },
    timeout: { type: 'string', short: 't', help: 'shorten the wall time: 250, 250ms or 30s' },
    limits: { type: 'string', short: 'l', help: 'lower limits: memoryBytes=33554432,pids=16' },
    verbose: { type: 'boolean', short: 'v', help: 'say which sandbox, how long, how much' },
  },
  async run({ api, output, options, operands: [name = ''] }) {
    const headers = headersOf(options)
    const body = await readPayload(options)
    const answer = await api.ask('POST', `/v1/functions/${encodeURIComponent(name)}/invoke`, { body, headers })
    const logs = Buffer.from(String(answer.headers['x-mayfly-logs'] ?? ''), 'base64')
    const isOk = answer.status === 200
    if (output.isJson) {
      output.show(reportOf(answer, logs), () => '')
      return isOk ? 0 : 1
    }
    const isVerbose = options.has('verbose')
    if (logs.length > 0 && (isVerbose || !isOk)) output.note(logs.toString().trimEnd())
    if (isVerbose) output.note(detailsOf(answer.headers))
    if (!isOk) throw errorIn(answer)
    await output.write(answer.body)
    return 0
  },
}

function headersOf(options: Options): Record<string, string> {
  const timeout = options.text('timeout')
  const limits = options.text('limits')
  return {
    'X-Mayfly-Log-Type': 'Tail',
    ...(timeout === undefined ? {} : { 'X-Timeout': timeout }),
    ...(limits === undefined ? {} : { 'X-Mayfly-Limits': limits }),
  }
}

async function readPayload(options: Options): Promise<Uint8Array> {
  const [data, file] = [options.text('data'), options.text('file')]
  if (data !== undefined && file !== undefined) throw new UsageError('--data and --file exclude each other')
  if (data !== undefined) return Buffer.from(data)
  if (file !== undefined && file !== '-') return await readFile(file)
  // A person at a terminal who gave no payload means none, and would wait for ever otherwise.
  return process.stdin.isTTY && file === undefined ? new Uint8Array() : await buffer(process.stdin)
}

function reportOf(answer: Answer, logs: Buffer) {
  const { headers, body } = answer
  return {
    outcome: headers['x-mayfly-outcome'],
    start: headers['x-mayfly-start'],
    sandbox: headers['x-mayfly-sandbox'],
    timing: headers['server-timing'],
    usage: headers['x-mayfly-usage'],
    requestId: headers['x-request-id'],
    logs: logs.toString(),
    ...(answer.status === 200 ? { outputBase64: body.toString('base64') } : JSON.parse(body.toString())),
  }
}

function detailsOf(headers: IncomingHttpHeaders): string {
  const rows = {
    outcome: headers['x-mayfly-outcome'],
    sandbox: headers['x-mayfly-sandbox'],
    start: headers['x-mayfly-start'],
    timing: headers['server-timing'],
    usage: headers['x-mayfly-usage'],
  }
  const known = Object.entries(rows).filter(([, value]) => value !== undefined)
  return known.map(([name, value]) => `${name.padEnd(8)} ${value}`).join('\n')
}
