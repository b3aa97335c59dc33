// What a manifest may say, and what it means.
import { describe, expect, it } from 'vitest'
import { type Image, parseManifest, resolveFunction } from '../../../contract/function.ts'
import { DEFAULT_LIMITS } from '../../../contract/limits.ts'

const MANIFEST = { name: 'echo', image: 'echo', contract: 'link' } as const
const IMAGE: Image = {
  digest: `sha256:${'a'.repeat(64)}`,
  layers: [`sha256:${'b'.repeat(64)}`],
  config: { entrypoint: ['/echo'], cmd: ['-v'], env: { A: '1', B: '1' }, workingDir: '/srv', user: '', labels: {} },
}
const refuses = (manifest: unknown, word: string) =>
  expect(() => resolveFunction(parseManifest(manifest), IMAGE)).toThrow(
    expect.objectContaining({ code: 'INVALID_MANIFEST', message: expect.stringContaining(word) }),
  )

describe('a manifest', () => {
  it('is filled up from the image and the defaults', () => {
    expect(
      resolveFunction(parseManifest({ ...MANIFEST, env: { B: '2' }, limits: { wallMs: 5 } }), IMAGE),
    ).toMatchObject({
      argv: ['/echo', '-v'],
      env: { A: '1', B: '2' },
      cwd: '/srv',
      uid: 1000,
      gid: 1000,
      limits: { ...DEFAULT_LIMITS, wallMs: 5 },
      reuse: 'never',
      start: 'eager',
    })
  })

  it('never runs as root', () => {
    for (const [user, uid, gid] of [
      ['0', 1000, 1000],
      ['0:0', 1000, 1000],
      ['7', 7, 7],
      ['7:8', 7, 8],
    ] as const) {
      const image = { ...IMAGE, config: { ...IMAGE.config, user } }
      expect(resolveFunction(parseManifest(MANIFEST), image)).toMatchObject({ uid, gid })
    }
  })

  it.each([
    ['an unknown key', { ...MANIFEST, colour: 'red' }, 'colour'],
    ['an unknown limit', { ...MANIFEST, limits: { memory: 1 } }, 'memory'],
    ['a negative limit', { ...MANIFEST, limits: { memoryBytes: -1 } }, 'limits.memoryBytes'],
    ['an absurd limit', { ...MANIFEST, limits: { pids: 1e9 } }, 'limits.pids'],
    ['a limit that is no number', { ...MANIFEST, limits: { wallMs: Number.NaN } }, 'limits.wallMs'],
    ['a name that climbs', { ...MANIFEST, name: '../x' }, 'name'],
    ['a name too long', { ...MANIFEST, name: 'a'.repeat(65) }, 'name'],
    ['a pool upside down', { ...MANIFEST, pool: { min: 3, max: 2 } }, 'min is above max'],
    ['a command of nothing', { ...MANIFEST, command: [] }, 'command'],
    ['NUL in the command', { ...MANIFEST, command: ['a\0b'] }, 'NUL'],
    ['an argument too long', { ...MANIFEST, command: ['x'.repeat(200_000)] }, 'KiB'],
    ['arguments too long together', { ...MANIFEST, command: Array(12).fill('x'.repeat(100_000)) }, '1 MiB'],
    ['a variable that is none', { ...MANIFEST, env: { 'A=B': '1' } }, 'env'],
    ['a working directory in /proc', { ...MANIFEST, cwd: '/proc/self/fd/7' }, '/proc'],
    ['a relative working directory', { ...MANIFEST, cwd: 'srv' }, 'cwd'],
    ['a working directory that climbs', { ...MANIFEST, cwd: '/a/../..' }, 'cwd'],
    ['no mapping', null, 'manifest'],
  ])('with %s is refused', (_, manifest, word) => {
    refuses(manifest, word)
  })

  it('needs a command where the image has none', () => {
    const image = { ...IMAGE, config: { ...IMAGE.config, entrypoint: [], cmd: [] } }
    expect(() => resolveFunction(parseManifest(MANIFEST), image)).toThrow('ENTRYPOINT')
  })
})
