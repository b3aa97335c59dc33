// The HTTP API as one function from request to answer, built without listening. Routes know functions and outcomes;
// they do not know how a sandbox is made.
import { randomUUID } from 'node:crypto'
import { type Context, Hono } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { PlatformError } from '../contract/errors.ts'
import { errorAnswer } from './error-response.ts'
import type { AppEnv, Deps, Routes } from './http.ts'
import { functionRoutes } from './routes/functions.ts'
import { healthRoutes } from './routes/health.ts'
import { invokeRoutes } from './routes/invoke.ts'
import { poolRoutes } from './routes/pool.ts'

const REQUEST_ID = /^[\w.-]{1,128}$/

export function createApp(deps: Deps): Hono<AppEnv> {
  const app = new Hono<AppEnv>()
  app.use(async (c, next) => {
    const given = c.req.header('x-request-id')
    c.set('requestId', given !== undefined && REQUEST_ID.test(given) ? given : randomUUID())
    c.set('startedMs', performance.now())
    c.header('X-Request-Id', c.get('requestId'))
    // A function's bytes must never act as a page of this origin.
    c.header('X-Content-Type-Options', 'nosniff')
    c.header('Content-Security-Policy', "sandbox; default-src 'none'")
    c.header('Cache-Control', 'no-store')
    refuseForeignPages(c)
    await next()
    deps.log.debug({ requestId: c.get('requestId'), method: c.req.method, path: c.req.path, status: c.res.status })
  })
  const routes = { ...functionRoutes(deps), ...invokeRoutes(deps), ...poolRoutes(deps), ...healthRoutes(deps) }
  for (const [path, methods] of Object.entries(routes)) addRoute(app, path, methods)
  app.notFound(() => {
    throw new PlatformError('NOT_FOUND', 'there is nothing at this path')
  })
  app.onError((error, c) => {
    const answer = errorAnswer(error, c.get('requestId'))
    if (answer.body.error.code === 'INTERNAL')
      deps.log.error({ requestId: c.get('requestId'), err: error }, 'internal error')
    else if (answer.status >= 500) deps.log.warn({ requestId: c.get('requestId'), err: error }, answer.body.error.code)
    return c.json(answer.body, answer.status as ContentfulStatusCode, answer.headers)
  })
  return app
}

function addRoute(app: Hono<AppEnv>, path: string, methods: Routes[string]): void {
  for (const [method, handler] of Object.entries(methods)) app.on(method, path, handler)
  const allowed = Object.keys(methods).join(', ')
  app.all(path, (c) => {
    c.header('Allow', allowed)
    throw new PlatformError('METHOD_NOT_ALLOWED', `${c.req.method} is not for this path; ${allowed} is`)
  })
}

/**
 * There is no authentication, and a browser on this machine reaches 127.0.0.1 from any page. A page of another origin
 * says so in `Origin`; one that had its own name re-pointed here (DNS rebinding) has that name in `Host`.
 */
function refuseForeignPages(c: Context<AppEnv>): void {
  const { hostname, host } = new URL(c.req.url)
  const isLoopback = hostname === '127.0.0.1' || hostname === 'localhost' || hostname === '[::1]'
  if (!isLoopback) throw new PlatformError('INVALID_REQUEST', 'the Host header names another machine')
  const origin = c.req.header('origin')
  if (origin !== undefined && origin !== `http://${host}`) {
    throw new PlatformError('INVALID_REQUEST', 'requests from pages of other origins are refused')
  }
}
