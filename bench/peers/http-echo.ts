// A peer that is an HTTP server and answers a POST to / with its body.
import type { Callee } from './callee.ts'
import { Client } from './http.ts'
import type { Program } from './program.ts'

export async function openEcho(program: Program): Promise<Callee> {
  const client = new Client(await program.port())
  return {
    call: async (payload) => ({ answer: await client.post('/', payload) }),
    async close() {
      client.close()
      await program.close()
    },
  }
}
