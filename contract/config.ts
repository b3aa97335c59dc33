// Every setting there is: its name, default, parser and help, in one table. The only file that reads the environment.
// Defaults go through the same parser as what a user types, so that a bad default cannot ship.
import { homedir } from 'node:os'
import { join } from 'node:path'
import { PlatformError } from './errors.ts'
import { PAYLOAD_BYTES_MAX } from './limits.ts'

type Env = Readonly<Record<string, string | undefined>>

interface Setting<T> {
  readonly env: string
  /** As a user would type it; a function where it depends on the environment. */
  readonly fallback: string | ((env: Env) => string)
  readonly parse: (text: string) => T
  readonly help: string
}

/** systemd-nspawn's range ends at 0x6fffffff; ids there and above are nobody's by default. */
const UID_BASE = 0x7000_0000
/** The whole range of 65536 ids must fit below 2^32 - 2, the last id that is one. */
const UID_BASE_MAX = 0xffff_fffe - 65_536
const LOG_LEVELS = ['silent', 'error', 'warn', 'info', 'debug'] as const

export const SETTINGS = {
  port: setting('PORT', '8080', integer(0, 65_535), 'port of the HTTP API; 0 takes any free one'),
  host: setting('HOST', '127.0.0.1', loopback, 'address of the HTTP API; no other until there is authentication'),
  home: setting('MAYFLY_HOME', defaultHome, absolutePath, 'folder of all state'),
  url: setting('MAYFLY_URL', defaultUrl, httpUrl, 'what the command line talks to'),
  slots: setting('MAYFLY_SLOTS', '128', integer(1, 4096), 'places in the pool: the most sandboxes at a time'),
  uidBase: setting('MAYFLY_UID_BASE', `${UID_BASE}`, integer(65_536, UID_BASE_MAX), 'first of 65536 host ids, as root'),
  cgroup: setting('MAYFLY_CGROUP', 'auto', cgroupPlace, 'auto, none, or the group to work below'),
  allowDegraded: setting('MAYFLY_ALLOW_DEGRADED', 'false', boolean, 'serve although no limits can be enforced'),
  drainMs: setting('MAYFLY_DRAIN_MS', '30000', integer(0, 900_000), 'how long SIGTERM waits for running invocations'),
  logLevel: setting('MAYFLY_LOG_LEVEL', 'info', oneOf(...LOG_LEVELS), 'least severe line written to stderr'),
  payloadBytesMax: setting('MAYFLY_PAYLOAD_BYTES', `${PAYLOAD_BYTES_MAX}`, bytes, 'longest payload of an invocation'),
  manifestBytesMax: setting('MAYFLY_MANIFEST_BYTES', `${1024 * 1024}`, bytes, 'longest body of any other request'),
  connectionsMax: setting('MAYFLY_CONNECTIONS', '1024', integer(1, 65_535), 'most HTTP connections at a time'),
  requestMs: setting('MAYFLY_REQUEST_MS', '30000', integer(1000, 900_000), 'how long a request may take to arrive'),
} as const

export type Config = { readonly [K in keyof typeof SETTINGS]: ReturnType<(typeof SETTINGS)[K]['parse']> }
export type SettingSource = 'default' | 'environment' | 'flag'

/** `flags` are what a command line gave, by setting; they win over the environment. */
export function readConfig(
  env: Env = process.env,
  flags: { readonly [K in keyof Config]?: string | undefined } = {},
): Config {
  return Object.freeze(Object.fromEntries(settingsIn(env, flags).map(({ key, value }) => [key, value]))) as Config
}

/** The table as `mayfly config` prints it. */
export function settingsIn(env: Env = process.env, flags: { readonly [key: string]: string | undefined } = {}) {
  return Object.entries<Setting<unknown>>(SETTINGS).map(([key, { env: name, fallback, parse, help }]) => {
    const typed = env[name] === '' ? undefined : env[name]
    const source: SettingSource = flags[key] !== undefined ? 'flag' : typed !== undefined ? 'environment' : 'default'
    const text = flags[key] ?? typed ?? (typeof fallback === 'string' ? fallback : fallback(env))
    try {
      return { key, name, value: parse(text), source, help }
    } catch (cause) {
      throw new PlatformError('INVALID_SETTING', `${name}: ${(cause as Error).message}`, { cause })
    }
  })
}

function setting<T>(
  env: string,
  fallback: Setting<T>['fallback'],
  parse: (text: string) => T,
  help: string,
): Setting<T> {
  return { env, fallback, parse, help }
}

function integer(min: number, max: number) {
  return (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
    if (!(value >= min && value <= max)) throw new Error(`${quote(text)} is no whole number from ${min} to ${max}`)
    return value
  }
}

function bytes(text: string): number {
  return integer(0, PAYLOAD_BYTES_MAX)(text)
}

function oneOf<const T extends string>(...choices: T[]) {
  return (text: string): T => {
    const choice = choices.find((candidate) => candidate === text)
    if (choice === undefined) throw new Error(`${quote(text)} is none of ${choices.join(', ')}`)
    return choice
  }
}

function boolean(text: string): boolean {
  return oneOf('true', 'false', '1', '0')(text).match(/true|1/) !== null
}

/** There is no authentication: whoever reaches the port runs code. */
function loopback(text: string): string {
  if (text !== '127.0.0.1')
    throw new Error(`${quote(text)} is refused: without authentication the API listens on 127.0.0.1 only`)
  return text
}

/** `none` needs MAYFLY_ALLOW_DEGRADED too; a path is one of /proc/PID/cgroup. */
function cgroupPlace(text: string): string {
  if (text === 'auto' || text === 'none') return text
  if (!text.startsWith('/')) throw new Error(`${quote(text)} is none of auto, none and the path of a group`)
  return absolutePath(text)
}

function absolutePath(text: string): string {
  if (!text.startsWith('/') || text.includes('\0')) throw new Error(`${quote(text)} is no absolute path`)
  return text === '/' ? text : text.replace(/\/+$/, '')
}

function httpUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol !== 'http:') throw new Error(`${quote(text)} is no http:// URL`)
  return url.origin
}

function defaultHome(env: Env): string {
  if (process.geteuid?.() === 0) return '/var/lib/mayfly'
  return join(env['XDG_DATA_HOME'] || join(env['HOME'] || homedir(), '.local/share'), 'mayfly')
}

function defaultUrl(env: Env): string {
  return `http://127.0.0.1:${env['PORT'] || '8080'}`
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 80))
}
