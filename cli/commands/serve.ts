// mayfly serve: the server in the foreground. The first SIGTERM or SIGINT lets what runs end; a second one does not wait.
import { readConfig } from '../../contract/config.ts'
import type { Command } from '../command.ts'
import { style } from '../output.ts'

/** EX_SOFTWARE of sysexits.h: the supervisor should start us again. */
const EXIT_LOST = 70

export const serve: Command = {
  operands: '',
  summary: 'run the server',
  example: 'mayfly serve --port 9000',
  arity: [0, 0],
  options: {
    port: { type: 'string', short: 'p', help: 'listen on this port (PORT)' },
    'allow-degraded': { type: 'boolean', help: 'serve although no limits can be enforced' },
  },
  async run({ options, output }) {
    const allowDegraded = options.has('allow-degraded') ? 'true' : undefined
    const config = readConfig(undefined, { port: options.text('port'), allowDegraded })
    // Here and not above: no other command needs the addon, and this one alone pays for loading it.
    const [{ serve: start }, { createLog }] = await Promise.all([
      import('../../gateway/server.ts'),
      import('../../gateway/log.ts'),
    ])
    const log = createLog(config.logLevel)
    // A bug leaves this process in a state that nobody knows: end, and let the next start clean up.
    process.on('uncaughtException', (err) => {
      log.error({ err }, 'internal error')
      process.exit(EXIT_LOST)
    })
    const server = await start(config, log)
    output.show({ url: server.url, pid: process.pid, functions: server.functions }, () =>
      banner(server.url, server.functions),
    )
    const stopped = new Promise<number>((resolve, reject) => {
      const onSignal = (signal: NodeJS.Signals) => {
        process.once('SIGTERM', exitNow).once('SIGINT', exitNow)
        log.info({ signal, drainMs: config.drainMs }, 'draining; a second signal does not wait')
        server.drain().then(() => resolve(0), reject)
      }
      const onFirst = (signal: NodeJS.Signals) => {
        process.off('SIGTERM', onFirst).off('SIGINT', onFirst)
        onSignal(signal)
      }
      process.on('SIGTERM', onFirst).on('SIGINT', onFirst)
    })
    const lost = server.lost.then((err) => {
      log.error({ err }, 'the pool is gone; start again')
      return EXIT_LOST
    })
    // Exits at once: there is no clean-up that the kernel and the next start would not do anyway.
    process.exit(await Promise.race([stopped, lost]))
  },
}

function exitNow(_signal: NodeJS.Signals, number: number): void {
  process.exit(128 + number)
}

function banner(url: string, functions: readonly string[]): string {
  const [first = 'NAME'] = functions.includes('echo') ? ['echo'] : functions
  return [
    '',
    `${style('bold', 'Mayfly')} is ready at ${url}. Call a function:`,
    '',
    `  ${style('cyan', `echo 'Hello, mayfly!' | curl --data-binary @- ${url}/v1/functions/${first}/invoke`)}`,
    '',
    `Functions: ${functions.join(', ') || 'none yet; see mayfly deploy --help'}`,
    '',
    '',
  ].join('\n')
}
