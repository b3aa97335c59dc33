// Which functions are deployed, across restarts: one file each under MAYFLY_HOME/functions, all of them in memory.
// It does not know whether a function runs; the pool does.
import { createHash } from 'node:crypto'
import { chmodSync, readdirSync, readFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { PlatformError } from '../contract/errors.ts'
import { FUNCTION_NAME, type FunctionSpec, type Manifest } from '../contract/function.ts'
import { ensureFolder, openHome, syncFolder, writeDurably } from '../images/durable.ts'

export interface FunctionRecord {
  readonly name: string
  /** `sha256:…` of the spec: the same manifest over the same image is the same version. */
  readonly version: string
  readonly deployedAt: string
  readonly manifest: Manifest
  readonly spec: FunctionSpec
}

export interface Registry {
  /** FUNCTION_NOT_FOUND where there is none. */
  get(name: string): FunctionRecord
  has(name: string): boolean
  list(): readonly FunctionRecord[]
  put(record: FunctionRecord): Promise<void>
  remove(name: string): Promise<void>
}

/** `onUnreadable` hears of a file that is no record: one bad file must not keep the other functions down. */
export function openRegistry(path: string, onUnreadable: (file: string, cause: unknown) => void): Registry {
  const home = openHome(path)
  const folder = ensureFolder(home, 'functions')
  // A manifest's env may hold what only its function should see.
  chmodSync(folder, 0o700)
  const records = readRecords(folder, onUnreadable)
  const fileOf = (name: string) => join(folder, `${name}.json`)
  return {
    has: (name) => records.has(name),
    list: () => [...records.values()].sort((a, b) => a.name.localeCompare(b.name)),
    get(name) {
      const record = records.get(name)
      if (record === undefined) throw new PlatformError('FUNCTION_NOT_FOUND', `no function is called ${quote(name)}`)
      return record
    },
    async put(record) {
      await writeDurably(home, fileOf(record.name), `${JSON.stringify(record, null, 2)}\n`)
      records.set(record.name, record)
    },
    async remove(name) {
      records.delete(name)
      await rm(fileOf(name), { force: true })
      await syncFolder(folder)
    },
  }
}

export function versionOf(spec: FunctionSpec): string {
  return `sha256:${createHash('sha256')
    .update(JSON.stringify(sorted(spec)))
    .digest('hex')}`
}

function readRecords(folder: string, onUnreadable: (file: string, cause: unknown) => void) {
  const records = new Map<string, FunctionRecord>()
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.json'))) {
    try {
      const record = JSON.parse(readFileSync(join(folder, file), 'utf8')) as FunctionRecord
      const isOurs =
        FUNCTION_NAME.test(record.name) && file === `${record.name}.json` && record.spec.name === record.name
      if (!isOurs) throw new Error('the record is not that of its file name')
      records.set(record.name, record)
    } catch (cause) {
      onUnreadable(join(folder, file), cause)
    }
  }
  return records
}

/** JSON with its keys in one order, so that the same spec has the same digest. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, entry]) => [key, sorted(entry)]),
  )
}

function quote(name: string): string {
  return JSON.stringify(name.slice(0, 64))
}
