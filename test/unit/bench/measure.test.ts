// Whether latencies, figures and the machine's own time are said as they were.
import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { higher, Latency, lower, MachineTime, memAvailableKiB } from '../../../bench/measure.ts'
import { latencyOf } from './_result.ts'

describe('Latency', () => {
  it('says percentiles to three digits', () => {
    const latency = new Latency()
    for (let call = 1; call <= 10_000; call++) latency.recordMs(call / 1000)
    expect(latency.count).toBe(10_000)
    for (const [us, expected] of [
      [latency.p50Us, 5000],
      [latency.p90Us, 9000],
      [latency.p99Us, 9900],
      [latency.p999Us, 9990],
      [latency.maxUs, 10_000],
    ] as const) {
      expect(Math.abs(us / expected - 1)).toBeLessThan(0.001)
    }
    expect(latency.summary).toEqual({
      count: 10_000,
      p50Us: latency.p50Us,
      p90Us: latency.p90Us,
      p99Us: latency.p99Us,
      p999Us: latency.p999Us,
      maxUs: latency.maxUs,
    })
  })

  it('adds another one, which stays as it was', () => {
    const [a, b] = [latencyOf(1, 1, 1), latencyOf(9, 9, 9, 9)]
    a.add(b)
    expect([a.count, b.count]).toEqual([7, 4])
    expect(a.p50Us).toBeGreaterThan(8000)
  })

  it('keeps what took no time at all', () => {
    expect(latencyOf(0).summary).toMatchObject({ count: 1, maxUs: 0.001 })
  })

  it('draws no more of a tail than there are calls to know it', () => {
    const percentiles = (calls: number) =>
      latencyOf(...Array.from({ length: calls }, (_, call) => call + 1))
        .distribution()
        .map(([percentile]) => percentile)
    expect(percentiles(0)).toEqual([])
    expect(percentiles(10).slice(-2)).toEqual([85, 100])
    expect(percentiles(100).slice(-2)).toEqual([98, 100])
    expect(percentiles(20_000).slice(-2)).toEqual([99.99, 100])
  })

  it('ends its distribution with the slowest', () => {
    const points = latencyOf(...Array.from({ length: 200 }, (_, call) => (call === 0 ? 50 : 1))).distribution()
    expect(points.at(-1)?.[1]).toBeGreaterThan(49_900)
    expect(points.map(([, us]) => us)).toEqual(points.map(([, us]) => us).toSorted((a, b) => a - b))
  })
})

describe('figures', () => {
  it('say which way is better', () => {
    expect(lower(3, 'KiB')).toEqual({ value: 3, unit: 'KiB', better: 'lower' })
    expect(higher(480, '/s')).toEqual({ value: 480, unit: '/s', better: 'higher' })
    expect(lower(1).unit).toBe('')
  })
})

describe('MachineTime', () => {
  it('counts what other processes do, in all stretches together', () => {
    const time = new MachineTime()
    const spin = () => spawnSync(process.execPath, ['-e', 'const end = Date.now() + 150; while (Date.now() < end);'])
    time.start()
    spin()
    const first = time.stop()
    time.start()
    spin()
    const second = time.stop()
    // A machine that gives a spinning process less than a third of one processor for 150 ms is not there.
    expect(Math.min(first, second)).toBeGreaterThanOrEqual(50_000)
    expect(time.busyUs).toBe(first + second)
  })

  it('does not stop what was not started', () => {
    const time = new MachineTime()
    expect(() => time.stop()).toThrow('not started')
    time.start()
    time.stop()
    expect(() => time.stop()).toThrow('not started')
  })
})

describe('memAvailableKiB', () => {
  it('is more than nothing and less than everything', () => {
    expect(memAvailableKiB()).toBeGreaterThan(1024)
    expect(memAvailableKiB()).toBeLessThan(2 ** 40)
  })
})
