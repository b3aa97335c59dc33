// mayfly image build | pack | ls: images in the store of MAYFLY_HOME, without a server.
import { basename, resolve } from 'node:path'
import { buildImage } from '../../images/build.ts'
import { packBinary } from '../../images/closure.ts'
import { openStore } from '../../images/store.ts'
import type { Command } from '../command.ts'
import { table } from '../output.ts'

export const imageBuild: Command = {
  operands: 'DIR',
  summary: 'build an image from the Dockerfile in DIR',
  example: 'mayfly image build ./wordcount --tag wordcount',
  arity: [1, 1],
  options: {
    tag: { type: 'string', short: 't', help: 'name it' },
    file: { type: 'string', short: 'f', help: 'another Dockerfile' },
  },
  async run({ config, options, output, operands: [context = '.'] }) {
    const tag = options.text('tag')
    const dockerfile = options.text('file')
    const image = await buildImage({
      context,
      store: openStore(config.home),
      onProgress: output.progress,
      ...(tag === undefined ? {} : { tag }),
      ...(dockerfile === undefined ? {} : { dockerfile: resolve(dockerfile) }),
    })
    output.show(image, () => `${tag ?? ''} ${image.digest}\n`.trimStart())
    return 0
  },
}

export const imagePack: Command = {
  operands: 'BINARY',
  summary: 'make an image of a binary of this machine and the libraries it needs',
  example: 'mayfly image pack /usr/bin/jq --tag jq',
  arity: [1, 1],
  options: { tag: { type: 'string', short: 't', help: "name it; else the binary's own name" } },
  async run({ config, options, output, operands: [path = ''] }) {
    const tag = options.text('tag') ?? basename(path).toLowerCase()
    const image = await packBinary({ path, tag, store: openStore(config.home), onProgress: output.progress })
    output.show(image, () => `${tag} ${image.digest}\n`)
    return 0
  },
}

export const imageList: Command = {
  operands: '',
  summary: 'list the images',
  example: 'mayfly image ls',
  arity: [0, 0],
  async run({ config, output }) {
    const images = await openStore(config.home).list()
    const rows = images.map(({ tags, digest, layerBytes }) => [
      tags.join(' ') || '-',
      digest.slice(7, 19),
      mib(layerBytes),
    ])
    output.show({ images }, () => table(['TAGS', 'DIGEST', 'SIZE'], rows))
    return 0
  },
}

function mib(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`
}
