// The process in which isolated-vm's isolates live: answers each message with what the isolate answered and how long
// that took here, from nothing to the answer. Ends with the process that started it.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import type { Answer, Fresh, Question } from './isolated-vm.ts'

/** As far as it is used here. */
interface Ivm {
  readonly Isolate: new (options: { memoryLimit: number }) => Isolate
  readonly ExternalCopy: new (value: ArrayBuffer) => { copyInto(options: { release: boolean }): unknown }
}
interface Isolate {
  createContext(): Promise<Context>
  dispose(): void
}
interface Context {
  readonly global: { get(name: string, options: { reference: true }): Promise<Echo> }
  eval(source: string): Promise<unknown>
  release(): void
}
interface Echo {
  apply(self: undefined, args: unknown[], options: { result: { copy: true } }): Promise<ArrayBuffer>
}

const SOURCE = 'function echo(bytes) { return bytes }'
const MEMORY_MIB = 128

const [, , fresh, folder = ''] = process.argv as [string, string, Fresh, string]
const ivm = createRequire(join(folder, 'package.json'))('isolated-vm') as Ivm
const shared = fresh === 'context' ? new ivm.Isolate({ memoryLimit: MEMORY_MIB }) : undefined

process.on('message', async ({ id, payload }: Question) => {
  const answer = await answerTo(payload).catch((error: Error) => ({ error: error.message }))
  process.send?.({ id, ...answer } satisfies Answer)
})
process.once('disconnect', () => process.exit(0))

async function answerTo(payload: Uint8Array): Promise<{ ms: number; answer: Uint8Array }> {
  const askedAt = performance.now()
  const isolate = shared ?? new ivm.Isolate({ memoryLimit: MEMORY_MIB })
  const context = await isolate.createContext()
  await context.eval(SOURCE)
  const echo = await context.global.get('echo', { reference: true })
  const bytes = Uint8Array.from(payload).buffer
  const input = new ivm.ExternalCopy(bytes).copyInto({ release: true })
  const output = await echo.apply(undefined, [input], { result: { copy: true } })
  const ms = performance.now() - askedAt
  if (shared === undefined) isolate.dispose()
  else context.release()
  return { ms, answer: new Uint8Array(output) }
}
