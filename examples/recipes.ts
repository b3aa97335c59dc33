// How each example's program is made on this machine: which tool it takes, and what becomes of its folder.
import { execFile } from 'node:child_process'
import { cp, mkdir, realpath, stat, symlink } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import type { Image } from '../contract/function.ts'
import { buildImage } from '../images/build.ts'
import { packBinary } from '../images/closure.ts'
import type { Store } from '../images/store.ts'

const run = promisify(execFile)

/** A tool of this machine. `identity` changes when the tool does, and what it makes may be another. */
interface Tool {
  readonly path: string
  readonly identity: string
}

interface Work {
  /** The example's folder. */
  readonly source: string
  /** An empty folder to work in. */
  readonly folder: string
  readonly tag: string
  readonly tool: Tool
  readonly store: Store
  readonly say: (line: string) => void
}

export interface Recipe {
  /** Also the name of its folder. */
  readonly name: string
  findTool(): Promise<Tool>
  build(work: Work): Promise<Image>
}

/** The message says what to install. */
export class MissingTool extends Error {}

/** Parts of Python's standard library that no function uses: tests, windows, and what installs or builds packages. */
const PYTHON_LEFT_OUT =
  /^(test|idlelib|tkinter|turtle.*|lib2to3|ensurepip|distutils|pydoc_data|venv|config-.*|site-packages|dist-packages)$/
const PYTHON_FACTS =
  'import json, os, sys, sysconfig; p = sysconfig.get_paths(); ' +
  'print(json.dumps([os.path.realpath(sys.executable), p["stdlib"], p["platstdlib"], sys.version]))'

export const RECIPES: readonly Recipe[] = [
  {
    name: 'echo',
    findTool: () => findCompiler(['gcc', 'cc'], 'apt-get install gcc'),
    build: (work) => compile(['-O2', '-static', '-o', join(work.folder, 'echo'), join(work.source, 'echo.c')], work),
  },
  {
    name: 'wordcount',
    findTool: () => findCompiler(['rustc', join(homedir(), '.cargo/bin/rustc')], 'see https://rustup.rs'),
    build(work) {
      const options = ['--edition', '2024', '-O', '-C', 'target-feature=+crt-static', '-C', 'strip=symbols']
      return compile([...options, '-o', join(work.folder, 'wordcount'), join(work.source, 'main.rs')], work)
    },
  },
  { name: 'shell', findTool: findBusybox, build: buildShell },
  { name: 'python', findTool: findPython, build: buildPython },
]

async function findCompiler(names: readonly string[], remedy: string): Promise<Tool> {
  for (const path of names) {
    const version = await run(path, ['--version']).catch(() => undefined)
    if (version) return { path, identity: version.stdout }
  }
  throw new MissingTool(`${names[0]} is missing; ${remedy}`)
}

async function compile(argv: readonly string[], { source, folder, tag, tool, store, say }: Work): Promise<Image> {
  await run(tool.path, argv).catch((cause: { stderr?: string }) => {
    throw new MissingTool(
      `${tool.path} could not build it: ${(cause.stderr ?? '').trim().split('\n').slice(0, 3).join(' ')}`,
      { cause },
    )
  })
  return await buildImage({ context: folder, dockerfile: join(source, 'Dockerfile'), tag, store, onProgress: say })
}

async function findBusybox(): Promise<Tool> {
  for (const path of ['/bin/busybox', '/usr/bin/busybox', '/usr/local/bin/busybox', '/sbin/busybox']) {
    const found = await stat(path).catch(() => undefined)
    if (found) return { path, identity: `${path} ${found.size} ${found.mtimeMs}` }
  }
  throw new MissingTool('busybox is missing; apt-get install busybox-static')
}

/** One program that is all the commands it lists: a link for each. A busybox with libraries brings those too. */
async function buildShell({ folder, tag, tool, store, say }: Work): Promise<Image> {
  const { stdout } = await run(tool.path, ['--list'])
  const bin = join(folder, 'bin')
  await mkdir(bin)
  for (const name of stdout.split('\n').filter((name) => /^[\w[.-]+$/.test(name) && name !== 'busybox')) {
    await symlink('/bin/busybox', join(bin, name))
  }
  const include = [{ from: bin, to: '/bin' }]
  return await packBinary({ path: tool.path, include, entrypoint: ['/bin/sh', '-s'], tag, store, onProgress: say })
}

async function findPython(): Promise<Tool> {
  for (const path of ['/usr/bin/python3', '/usr/local/bin/python3', 'python3']) {
    const facts = await run(path, ['-I', '-c', PYTHON_FACTS]).catch(() => undefined)
    if (facts) return { path, identity: facts.stdout }
  }
  throw new MissingTool('python3 is missing; apt-get install python3')
}

async function buildPython({ source, folder, tag, tool, store, say }: Work): Promise<Image> {
  const [python, stdlib, platstdlib] = JSON.parse(tool.identity) as [string, string, string]
  const include = [{ from: join(source, 'main.py'), to: '/function/main.py' }]
  for (const library of new Set([stdlib, platstdlib])) {
    const staged = join(folder, library)
    await copyPruned(library, staged)
    // A sandbox is new every time and the image's times are not the host's: without this, each call would compile.
    const options = ['-q', '-j', '0', '--invalidation-mode', 'unchecked-hash', '-s', staged, '-p', library]
    await run(python, ['-I', '-m', 'compileall', ...options, staged])
    include.push({ from: staged, to: library })
  }
  // -I and -S: nothing of the environment and no site-packages, which are not in the image.
  const entrypoint = [python, '-IS', '/function/main.py']
  return await packBinary({ path: await realpath(python), include, entrypoint, tag, store, onProgress: say })
}

async function copyPruned(from: string, to: string): Promise<void> {
  const isWanted = (path: string) => {
    const inside = path.slice(from.length + 1)
    return basename(path) !== '__pycache__' && !PYTHON_LEFT_OUT.test(inside) && !/\/_(test|xx)[^/]*\.so$/.test(path)
  }
  await cp(from, to, { recursive: true, verbatimSymlinks: true, filter: isWanted })
}
