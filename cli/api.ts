// How the command line talks to a server: one request, one answer. An answer that is no success is thrown, in the words
// of the server.
import { type IncomingHttpHeaders, request } from 'node:http'
import { buffer } from 'node:stream/consumers'

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

export interface Ask {
  readonly body?: Uint8Array | string
  readonly headers?: Readonly<Record<string, string>>
}

export interface Api {
  /** The answer, whatever its status. */
  ask(method: string, path: string, ask?: Ask): Promise<Answer>
  /** The JSON of a success. */
  json<T>(method: string, path: string, ask?: Ask): Promise<T>
}

/** The server refused; `code` is one of its error codes. */
export class ApiError extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

export function createApi(url: string): Api {
  const ask: Api['ask'] = async (method, path, { body, headers } = {}) => {
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    // No time limit: how long an invocation may take is for the function's limits to say.
    const outgoing = request(`${url}${path}`, { method, headers: { ...headers } }, (incoming) => {
      const { statusCode: status = 0 } = incoming
      buffer(incoming).then((bytes) => resolve({ status, headers: incoming.headers, body: bytes }), reject)
    })
    outgoing.on('error', (cause) => reject(unreachable(url, cause)))
    outgoing.end(body)
    return promise
  }
  return {
    ask,
    async json<T>(method: string, path: string, options?: Ask) {
      const answer = await ask(method, path, options)
      if (answer.status >= 300) throw errorIn(answer)
      return (answer.body.length > 0 ? JSON.parse(answer.body.toString()) : undefined) as T
    },
  }
}

export function errorIn(answer: Answer): ApiError {
  try {
    const { error } = JSON.parse(answer.body.toString()) as { error: { code: string; message: string } }
    return new ApiError(error.code, error.message)
  } catch {
    return new ApiError('UNKNOWN', `the server answered ${answer.status}`)
  }
}

function unreachable(url: string, cause: NodeJS.ErrnoException): Error {
  if (cause.code !== 'ECONNREFUSED') return new Error(`${url}: ${cause.message}`, { cause })
  return new Error(`nothing answers at ${url}; start the server with npm start, or set MAYFLY_URL`, { cause })
}
