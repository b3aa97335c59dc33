// hono echoing over HTTP, nothing else, in a Node of its own: the floor of any answer over HTTP from Node.
import { join } from 'node:path'
import type { CalledPeer } from './callee.ts'
import { openEcho } from './http-echo.ts'
import { Program } from './program.ts'

export const hono: CalledPeer = {
  name: 'hono echo over HTTP',
  isolated: '-',
  fresh: '-',
  async open() {
    const program = new Program([process.execPath, join(import.meta.dirname, 'hono-server.ts')])
    return await openEcho(program)
  },
}
