// What every route shares: what it is given, the shape of a route table, and how it reads the request.
import type { HttpBindings } from '@hono/node-server'
import type { Context, Handler } from 'hono'
import { PlatformError } from '../contract/errors.ts'
import { FUNCTION_NAME } from '../contract/function.ts'
import { arrivalOf } from './arrival.ts'
import type { Deployer } from './deploy.ts'
import type { FunctionPool, ImageStore } from './deps.ts'
import type { Log } from './log.ts'
import type { Registry } from './registry.ts'

export interface Deps {
  readonly pool: FunctionPool
  readonly store: ImageStore
  readonly registry: Registry
  readonly deployer: Deployer
  readonly log: Log
  /** `starting` until every function has its sandboxes, `draining` from SIGTERM on. */
  readonly phase: () => 'starting' | 'ready' | 'draining'
}

export interface AppEnv {
  /** Absent when a test calls the app as a function. */
  Bindings: Partial<HttpBindings>
  Variables: { requestId: string; startedMs: number }
}

type Method = 'GET' | 'PUT' | 'POST' | 'DELETE'
/** Path, then method; what a path does not list is METHOD_NOT_ALLOWED there. */
export type Routes = Readonly<Record<string, Readonly<Partial<Record<Method, Handler<AppEnv, string>>>>>>

/** On every answer: a function's bytes must never act as a page of this origin. */
export function commonHeaders(requestId: string): Record<string, string> {
  return {
    'X-Request-Id': requestId,
    'X-Content-Type-Options': 'nosniff',
    'Content-Security-Policy': "sandbox; default-src 'none'",
    'Cache-Control': 'no-store',
  }
}

/** The bytes that were counted before the handler ran (arrival.ts). */
export function readBody(c: Context<AppEnv>): Uint8Array | Promise<Uint8Array> {
  return arrivalOf(c.env?.incoming)?.body ?? c.req.bytes()
}

export function parseName(c: Context<AppEnv>): string {
  const name = c.req.param('name') ?? ''
  if (FUNCTION_NAME.test(name)) return name
  throw new PlatformError(
    'INVALID_REQUEST',
    'a name is 1 to 64 of a-z, 0-9, - and _, and starts and ends with a letter or digit',
  )
}
