// The HTTP API as one function from request to answer, built without listening. Routes know functions and outcomes;
// they do not know how a sandbox is made.
import { randomUUID } from 'node:crypto'
import { type Context, Hono } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { PlatformError } from '../contract/errors.ts'
import { errorAnswer } from './error-response.ts'
import { type AppEnv, commonHeaders, type Deps, type Routes } from './http.ts'
import { functionRoutes } from './routes/functions.ts'
import { healthRoutes } from './routes/health.ts'
import { invokeRoutes } from './routes/invoke.ts'
import { poolRoutes } from './routes/pool.ts'

const REQUEST_ID = /^[\w.-]{1,128}$/
/** The start of a URL that names this machine in the usual way. */
const LOOPBACK = /^http:\/\/(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?\//

export function createApp(deps: Deps): Hono<AppEnv> {
  const app = new Hono<AppEnv>()
  app.use(async (c, next) => {
    const given = c.req.header('x-request-id')
    c.set('requestId', given !== undefined && REQUEST_ID.test(given) ? given : randomUUID())
    c.set('startedMs', performance.now())
    refuseForeignPages(c)
    await next()
    deps.log.debug({ requestId: c.get('requestId'), method: c.req.method, path: c.req.path, status: c.res.status })
  })
  addRoutes(app, invokeRoutes(deps))
  // The answers of `invoke` bring these themselves: a Headers object for each would cost more than the rest of the way.
  app.use(async (c, next) => {
    setCommonHeaders(c)
    await next()
  })
  addRoutes(app, { ...functionRoutes(deps), ...poolRoutes(deps), ...healthRoutes(deps) })
  app.notFound(() => {
    throw new PlatformError('NOT_FOUND', 'there is nothing at this path')
  })
  app.onError((error, c) => {
    const answer = errorAnswer(error, c.get('requestId'))
    if (answer.body.error.code === 'INTERNAL')
      deps.log.error({ requestId: c.get('requestId'), err: error }, 'internal error')
    else if (answer.status >= 500) deps.log.warn({ requestId: c.get('requestId'), err: error }, answer.body.error.code)
    setCommonHeaders(c)
    return c.json(answer.body, answer.status as ContentfulStatusCode, answer.headers)
  })
  return app
}

function addRoutes(app: Hono<AppEnv>, routes: Routes): void {
  for (const [path, methods] of Object.entries(routes)) {
    for (const [method, handler] of Object.entries(methods)) app.on(method, path, handler)
    const allowed = Object.keys(methods).join(', ')
    app.all(path, (c) => {
      c.header('Allow', allowed)
      throw new PlatformError('METHOD_NOT_ALLOWED', `${c.req.method} is not for this path; ${allowed} is`)
    })
  }
}

function setCommonHeaders(c: Context<AppEnv>): void {
  for (const [name, value] of Object.entries(commonHeaders(c.get('requestId')))) c.header(name, value)
}

/**
 * There is no authentication, and a browser on this machine reaches 127.0.0.1 from any page. A page of another origin
 * says so in `Origin`; one that had its own name re-pointed here (DNS rebinding) has that name in `Host`.
 */
function refuseForeignPages(c: Context<AppEnv>): void {
  const origin = c.req.header('origin')
  // Nearly every request; parsing a URL costs more than all else that is asked here.
  if (origin === undefined && LOOPBACK.test(c.req.url)) return
  const { hostname, host } = new URL(c.req.url)
  const isLoopback = hostname === '127.0.0.1' || hostname === 'localhost' || hostname === '[::1]'
  if (!isLoopback) throw new PlatformError('INVALID_REQUEST', 'the Host header names another machine')
  if (origin !== undefined && origin !== `http://${host}`) {
    throw new PlatformError('INVALID_REQUEST', 'requests from pages of other origins are refused')
  }
}
