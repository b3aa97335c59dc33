// POST /v1/functions/:name/invoke: raw bytes in, raw bytes out.
import { PlatformError } from '../../contract/errors.ts'
import { arrivalOf } from '../arrival.ts'
import { parseCallLimits } from '../call-options.ts'
import { commonHeaders, type Deps, parseName, type Routes, readBody } from '../http.ts'
import { outcomeAnswer } from '../outcome-response.ts'

export function invokeRoutes({ pool, registry, phase }: Deps): Routes {
  return {
    '/v1/functions/:name/invoke': {
      async POST(c) {
        if (phase() === 'draining') throw new PlatformError('DRAINING', 'this server is shutting down')
        const { name, spec } = registry.get(parseName(c))
        const arrival = arrivalOf(c.env?.incoming)
        const timeout = c.req.header('x-timeout')
        const limits = parseCallLimits({ timeout, limits: c.req.header('x-mayfly-limits') }, spec.limits)
        const payload = await readBody(c)
        const signal = arrival?.signal ?? c.req.raw.signal
        const invocation = await pool.invoke(name, payload, limits === undefined ? { signal } : { signal, limits })
        const bodyMs = arrival?.bodyMs ?? 0
        const requestId = c.get('requestId')
        const { status, headers, body } = outcomeAnswer(invocation, {
          requestId,
          wantsLogs: c.req.header('x-mayfly-log-type')?.toLowerCase() === 'tail',
          bodyMs,
          totalMs: bodyMs + performance.now() - c.get('startedMs'),
        })
        // Also with nobody left to read it the answer has a status, which the log shows.
        return new Response(body as Uint8Array<ArrayBuffer> | string, {
          status,
          headers: { ...commonHeaders(requestId), ...headers },
        })
      },
    },
  }
}
