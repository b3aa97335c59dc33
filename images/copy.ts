// Where COPY puts what it copies: Docker's rules for a destination, which depend on its trailing slash, on how many
// sources there are, and on what the image holds already.
import { posix } from 'node:path'
import type { ImageConfig } from '../contract/function.ts'
import type { BuildContext, Source } from './context.ts'
import { type Instruction, parseExecForm } from './dockerfile.ts'
import type { LayerDraft, LayerNode } from './layer.ts'
import type { ImageTree } from './tree.ts'
import { expand, splitWords } from './words.ts'

const FLAGS = ['chmod', 'chown']

export interface CopyStep {
  readonly instruction: Instruction
  readonly config: ImageConfig
  readonly layer: LayerDraft
  readonly tree: ImageTree<LayerNode>
  readonly files: BuildContext
}

export async function copy(step: CopyStep): Promise<void> {
  const { instruction, config, layer, tree } = step
  const { refuse } = instruction.syntax
  const mode = readFlags(instruction)
  const { sources, destination } = await readArguments(step)
  const target = posix.resolve('/', config.workingDir || '/', destination)
  const isFolder = /(^|\/)\.?$/.test(destination)
  if (sources.length > 1 && !isFolder) refuse(`several sources need a destination that is a folder: ${destination}/`)
  for (const source of sources) {
    if (source.node.type === 'directory') {
      placeFolder(source, target, { layer, mode })
      continue
    }
    const isInto = isFolder || tree.resolve(target).node?.type === 'directory'
    if (isInto) layer.ensureFolder(target)
    layer.place(isInto ? posix.join(target, posix.basename(source.name)) : target, withMode(source.node, mode))
  }
}

async function readArguments({
  instruction,
  config,
  files,
}: CopyStep): Promise<{ sources: Source[]; destination: string }> {
  const { refuse } = instruction.syntax
  const written = parseExecForm(instruction) ?? splitWords(instruction.rest, instruction.syntax)
  const words = written.map((word) => expand(word, config.env, instruction.syntax))
  const destination = words.pop() ?? ''
  if (words.length === 0) refuse('it takes a source and a destination')
  if (destination === '') refuse('the destination is empty')
  const sources: Source[] = []
  for (const word of words) sources.push(...(await files.find(word, refuse)))
  return { sources, destination }
}

/** A folder's content is copied, not the folder: it takes the destination's name. */
function placeFolder(
  source: Source,
  target: string,
  { layer, mode }: { layer: LayerDraft; mode: number | undefined },
): void {
  layer.ensureFolder(target, withMode(source.node, mode).mode)
  for (const [path, node] of source.content) {
    const to = posix.join(target, path)
    if (node.type === 'directory') layer.ensureFolder(to, withMode(node, mode).mode)
    else layer.place(to, withMode(node, mode))
  }
}

/** The mode of `--chmod`. `--chown` may say what is so anyway: what an image holds belongs to 0:0. */
function readFlags({ flags, syntax }: Instruction): number | undefined {
  for (const name of Object.keys(flags)) {
    if (!FLAGS.includes(name)) syntax.refuse(`--${name} is not supported`)
  }
  if (flags.chown !== undefined && !/^0(:0)?$/.test(flags.chown)) {
    syntax.refuse(
      `--chown=${flags.chown} is not supported: files of an image belong to 0:0, and a function reads them as others`,
    )
  }
  if (flags.chmod === undefined) return undefined
  if (!/^[0-7]{3,4}$/.test(flags.chmod)) syntax.refuse(`--chmod=${flags.chmod} is no octal mode such as 755`)
  return Number.parseInt(flags.chmod, 8)
}

function withMode(node: LayerNode, mode: number | undefined): LayerNode {
  return mode === undefined || node.type === 'symlink' ? node : { ...node, mode: mode & 0o1777 }
}
