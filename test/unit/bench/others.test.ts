// Who is said to have been busy: others, for as long as was watched, under names that harm no terminal.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { busyBetween, type Process, sampleOthers, watchOthers } from '../../../bench/others.ts'

function processes(...all: [pid: number, parent: number, ticks: number][]): Map<string, Process> {
  return new Map(all.map(([pid, parent, ticks]) => [`${pid} 0`, { pid, parent, name: `p${pid}`, ticks }]))
}

const busy = (before: Map<string, Process>, after: Map<string, Process>) =>
  busyBetween(before, after).map(({ pid, ticks }) => [pid, ticks])

describe('busyBetween', () => {
  it('names the busiest first and leaves out the idle, the new and this process', () => {
    const before = processes([10, 3, 5], [11, 3, 5], [12, 3, 5], [process.pid, 3, 5])
    const after = processes([10, 3, 6], [11, 3, 9], [12, 3, 5], [13, 3, 99], [process.pid, 3, 99])
    expect(busy(before, after)).toEqual([
      [11, 4],
      [10, 1],
    ])
  })

  it('knows a pid that came again', () => {
    const after = new Map([['10 7', { pid: 10, parent: 3, name: 'p10', ticks: 50 }]])
    expect(busy(processes([10, 3, 5]), after)).toEqual([])
  })

  it('counts of a child that ended only what it did meanwhile', () => {
    // 12 had run for 200, and 4 more, when it ended; 11, between the two, ended too.
    expect(busy(processes([10, 3, 1], [11, 10, 2], [12, 11, 200]), processes([10, 3, 1 + 2 + 204]))).toEqual([[10, 4]])
  })
})

describe('what is watched', () => {
  it('names a process that spins, before the start and during the run', async () => {
    const child = spawn(process.execPath, ['-e', 'process.title = "spin\\x1b[31m"; for (;;);'], { stdio: 'ignore' })
    try {
      await once(child, 'spawn')
      const endWatch = watchOthers()
      const before = (await sampleOthers()).join('\n')
      const during = endWatch().join('\n')
      for (const warnings of [before, during]) {
        expect(warnings).toContain(`(${child.pid})`)
        expect(warnings).not.toContain('\x1b')
      }
    } finally {
      child.kill('SIGKILL')
    }
  })
})
