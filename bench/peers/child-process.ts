// A process per call from Node itself, fed by stdin and read from stdout: what one writes first.
import { spawn } from 'node:child_process'
import type { Called, CalledPeer } from './callee.ts'

const ECHO = 'process.stdin.pipe(process.stdout)'

export const spawnNative: CalledPeer = {
  name: 'child_process.spawn, a static binary',
  isolated: '-',
  fresh: 'process',
  open: async ({ root }) => ({ call: (payload) => answerOf([`${root}/stdio`], payload), close: async () => undefined }),
}

export const spawnNode: CalledPeer = {
  name: 'child_process.spawn, node -e',
  isolated: '-',
  fresh: 'process, JavaScript heap',
  isSlow: true,
  open: async () => ({
    call: (payload) => answerOf([process.execPath, '-e', ECHO], payload),
    close: async () => undefined,
  }),
}

/** Until the process has ended and all it said is here. */
function answerOf([program = '', ...args]: readonly string[], payload: Buffer): Promise<Called> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'ignore'], env: {} })
    const chunks: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
    child.once('error', reject)
    child.once('close', (code) => {
      if (code === 0) resolve({ answer: Buffer.concat(chunks) })
      else reject(new Error(`the process ended with ${code}`))
    })
    child.stdin.end(payload)
  })
}
