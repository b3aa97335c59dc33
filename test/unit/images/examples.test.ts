// That the examples can be built with the tools of this machine, are deployable, and are not built twice for nothing.
import { rmSync, truncateSync } from 'node:fs'
import { beforeAll, describe, expect, it } from 'vitest'
import { resolveFunction } from '../../../contract/function.ts'
import { buildExamples } from '../../../examples/build.ts'
import { checkCommand } from '../../../images/deployable.ts'
import { openStore, type Store } from '../../../images/store.ts'
import { createKeptFolder, pathsOf } from './_workspace.ts'

const NAMES = ['echo', 'wordcount', 'shell', 'python']

describe('the examples', () => {
  let store: Store
  let built: Awaited<ReturnType<typeof buildExamples>>
  const said: string[] = []

  beforeAll(async () => {
    const folder = createKeptFolder()
    store = openStore(folder)
    built = await buildExamples({ store, onProgress: (line) => said.push(line) })
    return () => rmSync(folder, { recursive: true, force: true })
  }, 120_000)

  it('are all built where their tools are, each as an image of its name', async () => {
    // The set-up installs the tools; a line that names a missing one is what a reader of a failure needs.
    expect(
      built.map(({ manifest }) => manifest.name),
      said.join('\n'),
    ).toEqual(NAMES)
    for (const { manifest, image } of built) expect(await store.readImage(manifest.image)).toEqual(image)
  })

  it('have commands that can be run', async () => {
    const commands = built.map(({ manifest, image }) => checkCommand(image, store, resolveFunction(manifest, image)))
    expect(await Promise.all(commands)).toEqual(['/echo', '/wordcount', '/bin/sh', expect.stringMatching(/\/python3/)])
  })

  it('bring a Python whose library is compiled, without its tests', () => {
    const layer = built.find(({ manifest }) => manifest.name === 'python')?.image.layers[0] ?? ''
    const paths = pathsOf(store, layer)
    expect(paths).toContain('function/main.py')
    expect(paths.filter((path) => /\/json\/__pycache__\/decoder\.[^/]*\.pyc$/.test(path))).toHaveLength(1)
    expect(paths.filter((path) => /\/(test|idlelib|site-packages)\//.test(path))).toEqual([])
  })

  it('are kept the second time', async () => {
    const lines: string[] = []
    const again = await buildExamples({ store, onProgress: (line) => lines.push(line) })
    expect([again, lines]).toEqual([built, []])
  })

  it('are built again when what was kept is damaged', async () => {
    const lines: string[] = []
    truncateSync(store.blobPath(built[0]?.image.layers[0] as string), 1)
    const again = await buildExamples({ store, onProgress: (line) => lines.push(line) })
    expect(again).toEqual(built)
    expect(lines[0]).toBe('echo: building')
  })
})
