// Results as a run would leave them, without running anything.
import { Latency } from '../../../bench/measure.ts'
import { mergeRuns } from '../../../bench/merge.ts'
import { RESULT_VERSION, type Result } from '../../../bench/result.ts'
import type { Row, Section } from '../../../bench/scenario.ts'

export function latencyOf(...ms: readonly number[]): Latency {
  const latency = new Latency()
  for (const one of ms) latency.recordMs(one)
  return latency
}

/** As many calls as have a tail, the slowest in fifty ten times as slow as the others. */
export function tailed(ms: number, calls = 200): Latency {
  return latencyOf(...Array.from({ length: calls }, (_, call) => (call % 50 === 49 ? ms * 10 : ms)))
}

export function sectionOf(rows: readonly Row[], more: Partial<Section> = {}): Section {
  return { id: 'lease.link', title: 'A call', method: 'one', chart: 'latency', ratios: [], notes: [], ...more, rows }
}

export function resultOf(runs: readonly (readonly Section[])[], more: Partial<Result> = {}): Result {
  const sections = mergeRuns(runs)
  return {
    version: RESULT_VERSION,
    mayfly: '0.1.0',
    startedAt: '2026-01-02T03:04:05.000Z',
    endedAt: '2026-01-02T03:05:10.000Z',
    isQuick: false,
    runs: runs.length,
    host: {
      kernel: '6.1.0',
      cpus: 2,
      cpuModel: 'A processor',
      memoryBytes: 2 ** 33,
      swapUsedBytes: 0,
      load: 0.1,
      governor: null,
      hasTurbo: null,
      cgroups: 'v2',
      isVirtual: true,
      node: 'v24.0.0',
      peers: { bwrap: '0.8.0' },
      warnings: [],
    },
    scenarios: [{ name: 'lease', durationsMs: runs.map(() => 1000), failures: [], sections }],
    ratios: sections.flatMap((section) => section.ratios),
    answersChecked: 10,
    sandboxesSeen: 5,
    ...more,
  }
}
