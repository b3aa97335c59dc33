// mayfly deploy: a folder with mayfly.yaml (and a Dockerfile, then its image is built first) becomes a function.
import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { parse } from 'yaml'
import { parseManifest } from '../../contract/function.ts'
import { buildImage } from '../../images/build.ts'
import { openStore } from '../../images/store.ts'
import type { Command } from '../command.ts'

export const deploy: Command = {
  operands: 'DIR|MANIFEST',
  summary: 'deploy a function: build the image of its folder, then hand the manifest to the server',
  example: 'mayfly deploy ./wordcount',
  arity: [1, 1],
  async run({ api, config, output, operands: [path = '.'] }) {
    const file = statSync(path).isDirectory() ? join(path, 'mayfly.yaml') : path
    if (!existsSync(file)) throw new Error(`${path} has no mayfly.yaml`)
    const folder = dirname(resolve(file))
    const manifest = parseManifest({ name: basename(folder), ...readYaml(file) })
    if (existsSync(join(folder, 'Dockerfile'))) {
      output.progress(`building ${manifest.image}`)
      await buildImage({
        context: folder,
        tag: manifest.image,
        store: openStore(config.home),
        onProgress: output.progress,
      })
    }
    output.progress(`deploying ${manifest.name}`)
    const record = await api.json<{ name: string; version: string }>('PUT', `/v1/functions/${manifest.name}`, {
      body: JSON.stringify(manifest),
      headers: { 'Content-Type': 'application/json' },
    })
    output.show(record, () => `deployed ${record.name} ${record.version.slice(7, 19)}\n`)
    return 0
  },
}

function readYaml(file: string): object {
  const value: unknown = parse(readFileSync(file, 'utf8'))
  if (typeof value !== 'object' || value === null) throw new Error(`${file} is no mapping of names to values`)
  return value
}
