// hono echoing over HTTP, nothing else, in a Node of its own: the floor of any answer over HTTP from Node.
import { join } from 'node:path'
import type { CalledPeer } from './callee.ts'
import { Client } from './http.ts'
import { Program } from './program.ts'

export const hono: CalledPeer = {
  name: 'hono echo over HTTP',
  isolated: '-',
  fresh: '-',
  async open() {
    const program = new Program([process.execPath, join(import.meta.dirname, 'hono-server.ts')])
    const client = new Client(await program.port())
    return {
      call: async (payload) => ({ answer: await client.post('/', payload) }),
      async close() {
        client.close()
        await program.close()
      },
    }
  },
}
