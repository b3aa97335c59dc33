// What a run leaves behind: the raw result that `--json` writes, that the page is drawn from and that `compare` reads.
import { readFileSync } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { z } from 'zod'

/** Counts up when a reader of the one before would misread it. */
export const RESULT_VERSION = 2

const summary = {
  count: z.number(),
  p50Us: z.number(),
  p90Us: z.number(),
  p99Us: z.number(),
  p999Us: z.number(),
  maxUs: z.number(),
}

const latency = z
  .object({
    ...summary,
    /** Percentile and microseconds, for a plot. */
    distribution: z.array(z.tuple([z.number(), z.number()]).readonly()).readonly(),
    /** Each run by itself: how far they lie apart is the noise. */
    runs: z.array(z.object(summary).readonly()).readonly(),
  })
  .readonly()

const figure = z
  .object({
    /** The median of the runs. */
    value: z.number(),
    unit: z.string(),
    better: z.enum(['lower', 'higher']),
    runs: z.array(z.number()).readonly(),
  })
  .readonly()

const row = z
  .object({
    name: z.string(),
    latency: latency.optional(),
    figures: z.record(z.string(), figure).readonly().optional(),
    isolated: z.string().optional(),
    fresh: z.string().optional(),
  })
  .readonly()

const ratio = z
  .object({
    name: z.string(),
    /** The median of the runs. */
    value: z.number().nullable(),
    bound: z.number().nullable(),
    isFloor: z.boolean(),
    met: z.boolean().nullable(),
    runs: z.array(z.number()).readonly(),
  })
  .readonly()

const section = z
  .object({
    id: z.string(),
    title: z.string(),
    method: z.string(),
    chart: z.enum(['latency', 'stages', 'figures']),
    rows: z.array(row).readonly(),
    ratios: z.array(ratio).readonly(),
    notes: z.array(z.string()).readonly(),
  })
  .readonly()

const scenario = z
  .object({
    name: z.string(),
    /** One for each run in which it came to its end. */
    durationsMs: z.array(z.number()).readonly(),
    failures: z.array(z.object({ run: z.number(), message: z.string() }).readonly()).readonly(),
    sections: z.array(section).readonly(),
  })
  .readonly()

const host = z
  .object({
    kernel: z.string(),
    cpus: z.number(),
    cpuModel: z.string(),
    memoryBytes: z.number(),
    swapUsedBytes: z.number(),
    /** Runnable tasks over the last minute, before anything was measured. */
    load: z.number(),
    governor: z.string().nullable(),
    /** Whether the processor may clock higher than its nominal rate; nothing where the kernel does not say. */
    hasTurbo: z.boolean().nullable(),
    cgroups: z.enum(['v1', 'v2', 'hybrid', 'none']),
    isVirtual: z.boolean(),
    node: z.string(),
    /** What else stands in the tables: its name and version. */
    peers: z.record(z.string(), z.string()).readonly(),
    /** Why a number cannot be trusted, as seen before, and as seen afterwards. */
    warnings: z.array(z.string()).readonly(),
  })
  .readonly()

const result = z
  .object({
    version: z.literal(RESULT_VERSION),
    /** Of this project, as in its package.json. */
    mayfly: z.string(),
    startedAt: z.string(),
    endedAt: z.string(),
    isQuick: z.boolean(),
    runs: z.number(),
    host,
    scenarios: z.array(scenario).readonly(),
    /** Of all scenarios. */
    ratios: z.array(ratio).readonly(),
    /** Each answer was compared with its payload, and each sandbox's id with all before it. */
    answersChecked: z.number(),
    sandboxesSeen: z.number(),
  })
  .readonly()

export type LatencyResult = z.infer<typeof latency>
export type FigureResult = z.infer<typeof figure>
export type RowResult = z.infer<typeof row>
export type RatioResult = z.infer<typeof ratio>
export type SectionResult = z.infer<typeof section>
export type ScenarioResult = z.infer<typeof scenario>
export type Host = z.infer<typeof host>
export type Result = z.infer<typeof result>

/** A file that is no result this can read. */
export class UnreadableError extends Error {}

/** Refuses with a reason that names the file. */
export function readResult(path: string): Result {
  const refuse = (why: string, cause?: unknown) => new UnreadableError(`${path} ${why}`, { cause })
  let found: unknown
  try {
    found = JSON.parse(readFileSync(path, 'utf8'))
  } catch (cause) {
    throw refuse(`cannot be read: ${(cause as Error).message}`, cause)
  }
  const version = (found as { version?: unknown } | null)?.version
  if (version !== RESULT_VERSION) {
    const said = version === undefined ? 'says no version' : `has version ${JSON.stringify(version)}`
    throw refuse(`${said}, and this reads version ${RESULT_VERSION}`)
  }
  const parsed = result.safeParse(found)
  if (!parsed.success) throw refuse(`is no result of a benchmark: ${z.prettifyError(parsed.error)}`, parsed.error)
  return parsed.data
}

/** Whoever reads the file finds the old one or the new one, and never a part. */
export async function writeAside(path: string, text: string): Promise<void> {
  const aside = `${path}.${process.pid}.tmp`
  try {
    const file = await open(aside, 'w')
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(aside, path)
  } catch (error) {
    await rm(aside, { force: true })
    throw error
  }
}
