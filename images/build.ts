// How a Dockerfile becomes an image: each instruction changes the config, or adds one layer over those before it.
// Nothing is run. The same context gives the same digest.
import { readFile } from 'node:fs/promises'
import { posix, resolve } from 'node:path'
import { PlatformError } from '../contract/errors.ts'
import type { Image, ImageConfig } from '../contract/function.ts'
import { BuildContext } from './context.ts'
import { copy } from './copy.ts'
import { type Instruction, parseDockerfile, parseExecForm } from './dockerfile.ts'
import { PATH_DEFAULT } from './image-config.ts'
import { LayerDraft, type LayerNode } from './layer.ts'
import type { Store } from './store.ts'
import { ImageTree } from './tree.ts'
import { expand, splitWords } from './words.ts'

/** The largest id the kernel and Docker both take. */
const ID_MAX = 2 ** 31 - 1

export interface BuildOptions {
  /** The folder COPY reads from. */
  readonly context: string
  /** Absolute, or relative to the context; `Dockerfile` unless given. */
  readonly dockerfile?: string
  readonly tag?: string
  readonly store: Store
  /** SOURCE_DATE_EPOCH: the time of every entry and of the image, in seconds. */
  readonly epochSeconds?: number
  /** Told a line per step, for a person to read. */
  readonly onProgress?: (line: string) => void
}

/** What the instructions so far have made. */
interface Draft {
  config: ImageConfig
  readonly tree: ImageTree<LayerNode>
  readonly layers: string[]
}

interface Build extends BuildOptions {
  readonly files: BuildContext
  readonly draft: Draft
}

export async function buildImage(options: BuildOptions): Promise<Image> {
  const path = resolve(options.context, options.dockerfile ?? 'Dockerfile')
  const source = await readFile(path, 'utf8').catch((cause) => {
    throw new PlatformError('INVALID_IMAGE', `${path} cannot be read; a build needs a Dockerfile`, { cause })
  })
  const instructions = parseDockerfile(source)
  const config = { entrypoint: [], cmd: [], env: { PATH: PATH_DEFAULT }, workingDir: '/', user: '', labels: {} }
  const build: Build = {
    ...options,
    files: await BuildContext.open(options.context, path),
    draft: { config, tree: new ImageTree(), layers: [] },
  }
  for (const [index, instruction] of instructions.entries()) {
    options.onProgress?.(`[${index + 1}/${instructions.length}] ${instruction.keyword} ${instruction.rest}`)
    await INSTRUCTIONS[instruction.keyword](instruction, build)
  }
  const { draft } = build
  const image = await options.store.putImage({
    config: draft.config,
    layers: draft.layers,
    ...(options.epochSeconds !== undefined && { createdSeconds: options.epochSeconds }),
  })
  if (options.tag !== undefined) await options.store.tag(options.tag, image.digest)
  options.onProgress?.(`${options.tag ?? 'image'} is ${image.digest}`)
  return image
}

const INSTRUCTIONS: Readonly<
  Record<Instruction['keyword'], (instruction: Instruction, build: Build) => void | Promise<void>>
> = {
  async COPY(instruction, build) {
    const { config, tree } = build.draft
    const layer = new LayerDraft(tree)
    await copy({ instruction, config, layer, tree, files: build.files })
    await addLayer(layer, build)
  },
  async WORKDIR(instruction, { draft, ...build }) {
    const folder = expand(instruction.rest, draft.config.env, instruction.syntax)
    const workingDir = posix.resolve('/', draft.config.workingDir, folder)
    draft.config = { ...draft.config, workingDir }
    const layer = new LayerDraft(draft.tree)
    // Docker adds no layer for a folder that is there.
    if (draft.tree.resolve(workingDir).node?.type === 'directory') return
    layer.ensureFolder(workingDir)
    await addLayer(layer, { draft, ...build })
  },
  ENV(instruction, { draft }) {
    draft.config = { ...draft.config, env: { ...draft.config.env, ...readPairs(instruction, draft.config.env) } }
  },
  LABEL(instruction, { draft }) {
    draft.config = { ...draft.config, labels: { ...draft.config.labels, ...readPairs(instruction, draft.config.env) } }
  },
  USER(instruction, { draft }) {
    const user = expand(instruction.rest, draft.config.env, instruction.syntax)
    const ids =
      /^(\d+)(?::(\d+))?$/.exec(user) ??
      instruction.syntax.refuse(
        `${JSON.stringify(user)} is a name; only numbers, uid or uid:gid, mean something from scratch`,
      )
    if (ids.slice(1).some((id) => Number(id ?? 0) > ID_MAX)) instruction.syntax.refuse(`an id is at most ${ID_MAX}`)
    draft.config = { ...draft.config, user }
  },
  ENTRYPOINT(instruction, { draft }) {
    draft.config = { ...draft.config, entrypoint: requireExecForm(instruction) }
  },
  CMD(instruction, { draft }) {
    draft.config = { ...draft.config, cmd: requireExecForm(instruction) }
  },
}

async function addLayer(
  layer: LayerDraft,
  { draft, store, epochSeconds }: Pick<Build, 'draft' | 'store' | 'epochSeconds'>,
): Promise<void> {
  if (layer.isEmpty) return
  const digest = await layer.write(store, epochSeconds ?? 0)
  // A layer that repeats a lower one hides it whole, and an image may not name a layer twice.
  const repeated = draft.layers.indexOf(digest)
  if (repeated >= 0) draft.layers.splice(repeated, 1)
  draft.layers.push(digest)
}

/** `name=value …`, or the old `name value with blanks`. Values see the variables of the lines before. */
function readPairs({ rest, syntax }: Instruction, env: Readonly<Record<string, string>>): Record<string, string> {
  const words = splitWords(rest, syntax)
  if (!words[0]?.includes('=')) {
    const [, name = '', value = ''] = /^(\S+)\s*(.*)$/s.exec(rest) ?? []
    if (value === '') syntax.refuse(`${name} has no value; write ${name}=value`)
    return { [expand(name, env, syntax)]: expand(value, env, syntax) }
  }
  return Object.fromEntries(
    words.map((word) => {
      const equals = word.indexOf('=')
      if (equals < 1) syntax.refuse(`${JSON.stringify(word)} is not name=value`)
      return [expand(word.slice(0, equals), env, syntax), expand(word.slice(equals + 1), env, syntax)]
    }),
  )
}

function requireExecForm(instruction: Instruction): readonly string[] {
  const argv = parseExecForm(instruction)
  if (argv) return argv
  return instruction.syntax.refuse(
    'only the exec form, a JSON array such as ["/program", "argument"], is supported: the shell form needs /bin/sh, which an image from scratch does not have',
  )
}
