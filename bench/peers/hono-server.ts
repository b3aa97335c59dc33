// The echo that hono serves; says on descriptor 3 where.
import { writeSync } from 'node:fs'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'

const app = new Hono().post('/', async (context) => context.body(await context.req.arrayBuffer()))
serve({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 }, ({ port }) => writeSync(3, `port ${port}\n`))
