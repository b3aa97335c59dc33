// How peers that are HTTP servers are called: Node's own client, connections kept open.
import { Agent, request } from 'node:http'

export class Client {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 64 })
  readonly #port: number

  constructor(port: number) {
    this.#port = port
  }

  post(path: string, body: Uint8Array, type = 'application/octet-stream'): Promise<Buffer> {
    return this.#send('POST', path, { body, headers: { 'content-type': type, 'content-length': body.length } })
  }

  get(path: string): Promise<Buffer> {
    return this.#send('GET', path)
  }

  close(): void {
    this.#agent.destroy()
  }

  #send(method: string, path: string, { body, headers = {} }: Sent = {}): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const options = { agent: this.#agent, host: '127.0.0.1', port: this.#port, method, path, headers }
      const sent = request(options, (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.once('error', reject)
        response.once('end', () => {
          const answer = Buffer.concat(chunks)
          if (response.statusCode === 200) resolve(answer)
          else reject(new Error(`status ${response.statusCode}: ${answer.toString().slice(0, 200)}`))
        })
      })
      sent.once('error', reject)
      sent.end(body)
    })
  }
}

interface Sent {
  readonly body?: Uint8Array
  readonly headers?: Record<string, string | number>
}
