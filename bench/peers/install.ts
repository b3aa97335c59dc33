// Which peers are there, and how those come that are not: from Debian, from npm and from the Go module proxy, each into
// a folder of the benchmark's own where it is no package of the system. Does again only what is not done; one that
// fails is reported and the next one tried.
import { execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import { installCommand, isInstalled, PACKAGES, type Package, type PackageName, versionInFolder } from './packages.ts'
import { findProgram, makePeersFolder } from './place.ts'

export interface ListedPeer {
  readonly name: PackageName
  readonly isInstalled: boolean
  readonly version?: string
  /** The command that installs it alone. */
  readonly install: string
}

/** Where Go's own archive unpacks to, which few have in PATH. */
const GO = '/usr/local/go/bin/go'
const NAMES = Object.keys(PACKAGES) as PackageName[]
/** Of what a failing command said. */
const TAIL_LINES = 4

export async function listPeers(): Promise<readonly ListedPeer[]> {
  return await Promise.all(
    NAMES.map(async (name) => {
      const version = isInstalled(name) ? await versionOf(name) : undefined
      return { name, isInstalled: isInstalled(name), install: installCommand(name), ...(version && { version }) }
    }),
  )
}

export async function installPeers(onLine: (line: string) => void): Promise<void> {
  const failed: PackageName[] = []
  for (const name of NAMES) {
    if (isInstalled(name)) {
      onLine(`${name}: there`)
      continue
    }
    onLine(`${name}: ${installCommand(name)}`)
    const why = await installOne(PACKAGES[name])
    if (why === undefined) onLine(`${name}: installed`)
    else {
      failed.push(name)
      onLine(`${name}: could not be installed: ${why}`)
    }
  }
  onLine(failed.length === 0 ? 'all peers are there' : `the benchmark will run without ${failed.join(', ')}`)
}

/** Why not, or nothing. */
async function installOne(one: Package): Promise<string | undefined> {
  if (one.from === 'apt') return await installFromDebian(one.name)
  if (one.from === 'go') return await installFromGo(`${one.name}@${one.version}`)
  const folder = await makePeersFolder('node')
  const options = ['--prefix', folder, '--save-exact', '--no-fund', '--no-audit']
  return await attempt(['npm', 'install', ...options, `${one.name}@${one.version}`])
}

async function installFromDebian(name: string): Promise<string | undefined> {
  if (process.geteuid?.() !== 0) return 'it takes root; run this as root, or install it yourself'
  if (findProgram('apt-get') === undefined) return 'there is no apt-get; install it as your distribution does'
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  const install = ['apt-get', 'install', '--yes', '--no-install-recommends', name]
  if ((await attempt(install, env)) === undefined) return undefined
  // A machine that never fetched the list knows no package.
  await attempt(['apt-get', 'update'], env)
  return await attempt(install, env)
}

async function installFromGo(what: string): Promise<string | undefined> {
  if (findGo() === undefined) {
    const why = await installFromDebian('golang-go')
    if (why !== undefined) return `Go is missing, and golang-go: ${why}`
  }
  return await attempt([findGo() ?? 'go', 'install', what], { ...process.env, GOBIN: await makePeersFolder('bin') })
}

function findGo(): string | undefined {
  return findProgram('go') ?? (existsSync(GO) ? GO : undefined)
}

/** Why it failed, or nothing. */
function attempt(command: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<string | undefined> {
  const [program = '', ...args] = command
  return new Promise((resolve) => {
    const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    const hear = (bytes: Buffer) => {
      text = (text + bytes.toString()).slice(-4000)
    }
    child.stdout.on('data', hear)
    child.stderr.on('data', hear)
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code) =>
      resolve(code === 0 ? undefined : text.trim().split('\n').slice(-TAIL_LINES).join('\n  ')),
    )
  })
}

async function versionOf(name: PackageName): Promise<string | undefined> {
  const one: Package = PACKAGES[name]
  if (one.from === 'npm') return versionInFolder(one.name)
  if (one.from === 'go') return one.version
  const program = findProgram(one.program)
  if (program === undefined) return undefined
  const said = await promisify(execFile)(program, ['--version']).catch(() => ({ stdout: '' }))
  return /\d+(\.\d+)*/.exec(said.stdout)?.[0]
}
