// What must be there before Mayfly can run, and how it gets there: packages, the Node that runs TypeScript, the native
// parts, a few system programs. Plain JavaScript with built-ins only, because it runs before any of that exists, on
// whatever Node (20 or newer) started it. Idempotent: where nothing is missing it says so in a fraction of a second.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { homedir, release } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
const NATIVE = join(ROOT, 'native')
const BIN = join(NATIVE, 'bin')
const STAMP = join(BIN, '.stamp')
const STATE = join(ROOT, '.mayfly')
const TARGET = `${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-unknown-linux-gnu`
/** close_range(CLOSE_RANGE_CLOEXEC), cgroup.kill and mount_setattr are all there from this one on. */
const KERNEL_MIN = [5, 15]
/** How often a step that takes long says that it still runs, where nobody watches a terminal. */
const STILL_MS = 20_000

// rustup puts cargo here, and a shell that was started before it does not know.
const environment = { ...process.env, PATH: `${process.env.PATH}${delimiter}${join(homedir(), '.cargo/bin')}` }
const isTerminal = process.stderr.isTTY === true
const wants = new Set(process.argv.slice(2))

/** Programs of the system, by the Debian package that brings them. */
const EXAMPLES = { gcc: 'gcc', 'busybox-static': 'busybox', python3: 'python3' }
const TESTS = { ...EXAMPLES, bubblewrap: 'bwrap', strace: 'strace', uidmap: 'newuidmap' }
const VM = { ...EXAMPLES, 'qemu-system-x86': 'qemu-system-x86_64', 'squashfs-tools': 'mksquashfs', e2fsprogs: 'mke2fs' }

/** Each is done, or does it, or throws a Remedy; one that may stay undone has said so. */
const STEPS = [
  { name: 'packages', isDone: packagesAreFresh, run: installPackages },
  { name: 'Node', isDone: nodeIsThere, run: refuseWithoutNode },
  // Before the native parts, which need a linker.
  ...(wants.has('--check')
    ? []
    : [{ name: 'system programs', isDone: () => absent().length === 0, run: installPrograms }]),
  { name: 'native parts', isDone: nativeIsFresh, run: buildNative },
  ...(wants.has('--check') ? [{ name: 'Rust lints', isDone: lintsAreThere, run: installLints }] : []),
]

/** What cannot be mended here; its message says who can, and how. */
class Remedy extends Error {}

async function main() {
  refuseOldKernel()
  const started = Date.now()
  const release = await lock()
  try {
    const due = STEPS.filter(({ isDone }) => !isDone())
    for (const step of due) await perform(step)
    if (due.length === 0) say(`✓ set-up: nothing is missing (${secondsSince(started)})`)
  } finally {
    release()
  }
}

async function perform({ name, isDone, run }) {
  // An earlier step may have brought it, as npm brings Node.
  if (isDone()) return
  const started = Date.now()
  const still = setInterval(() => say(`… ${name} (${secondsSince(started)})`), STILL_MS)
  if (isTerminal) clearInterval(still)
  progress(`… ${name}`)
  try {
    await run((line) => progress(`… ${name}: ${line}`))
  } finally {
    clearInterval(still)
  }
  if (isDone()) say(`✓ ${name} (${secondsSince(started)})`)
}

// Packages: what npm wrote down when it last finished must agree with the lock file.

function packagesAreFresh() {
  const installed = readJson(join(ROOT, 'node_modules/.package-lock.json'))?.packages
  const locked = readJson(join(ROOT, 'package-lock.json'))?.packages ?? {}
  if (installed === undefined) return false
  return Object.entries(locked).every(([path, { version, optional }]) => {
    const there = installed[path]
    // An optional one may be for another machine.
    return path === '' || (there === undefined ? optional === true : there.version === version)
  })
}

async function installPackages(onLine) {
  // Not `npm ci`: it empties node_modules under whatever runs from it, and refuses a lock file that a registry without
  // the builds for every other platform has written.
  const command = [
    'npm',
    'install',
    '--no-save',
    '--include=dev',
    '--include=optional',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
  ]
  await runOr(command, { onLine }, 'npm could not install the packages; is a registry configured and reachable?')
}

function nodeIsThere() {
  return major(join(ROOT, 'node_modules/.bin/node')) >= 24
}

function refuseWithoutNode() {
  throw new Remedy(
    `the package node-linux-${process.arch} is not installed, so there is no Node 24 here; ` +
      'remove node_modules and any "omit=optional" from the npm configuration, and run this again',
  )
}

// Native parts: rebuilt when a source changed, by content, so that a fresh clone and a touched file both do right.

function nativeIsFresh() {
  const names = ['mayfly-launcher', 'mayfly-sandboxd', 'addon.node']
  if (!names.every((name) => fs.existsSync(join(BIN, name)))) return false
  return readText(STAMP) === sourceDigest()
}

async function buildNative(onLine) {
  if (!works('cargo', ['--version'])) {
    throw new Remedy(
      'Rust is missing; install rustup (https://rustup.rs, or apt-get install rustup), and run this again',
    )
  }
  if (!works('cc', ['--version'])) throw new Remedy('a C linker is missing; apt-get install gcc, and run this again')
  const digest = sourceDigest()
  const remedy = 'the native parts do not build; the lines above say why'
  const programs = ['build', '--release', '--target', TARGET, '-p', 'mayfly-sandboxd', '-p', 'mayfly-launcher']
  const addon = ['build', '--profile', 'addon', '-p', 'mayfly-addon']
  // Static: sandboxd and init run where there is no library to load.
  const RUSTFLAGS = '-C target-feature=+crt-static'
  await runOr(['cargo', ...programs], { onLine, cwd: NATIVE, env: { ...environment, RUSTFLAGS } }, remedy)
  await runOr(['cargo', ...addon], { onLine, cwd: NATIVE }, remedy)
  const target = environment.CARGO_TARGET_DIR ?? join(NATIVE, 'target')
  fs.mkdirSync(BIN, { recursive: true })
  publish(join(target, TARGET, 'release/mayfly-launcher'), 'mayfly-launcher')
  publish(join(target, TARGET, 'release/mayfly-sandboxd'), 'mayfly-sandboxd')
  publish(join(target, 'addon/libmayfly_addon.so'), 'addon.node')
  writeWhole(STAMP, digest)
}

/** By rename: whoever opens the name gets the old file or the new one, also while the old one runs. */
function publish(from, name) {
  const temporary = join(BIN, `.${name}.${process.pid}`)
  fs.copyFileSync(from, temporary)
  fs.chmodSync(temporary, 0o755)
  fs.renameSync(temporary, join(BIN, name))
}

function writeWhole(path, text) {
  const temporary = `${path}.${process.pid}`
  fs.writeFileSync(temporary, text)
  fs.renameSync(temporary, path)
}

function sourceDigest() {
  const hash = createHash('sha256')
  const visit = (folder) => {
    const entries = fs.readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))
    for (const entry of entries) {
      const path = join(folder, entry.name)
      const isOutput = folder === NATIVE && (entry.name === 'target' || entry.name === 'bin')
      if (entry.isDirectory() && !isOutput) visit(path)
      const isSource = /\.(rs|toml|lock|json|bpf)$/.test(entry.name)
      if (entry.isFile() && isSource)
        hash
          .update(`${path.slice(NATIVE.length)}\0`)
          .update(fs.readFileSync(path))
          .update('\0')
    }
  }
  visit(NATIVE)
  // The seccomp profiles are compiled in.
  visit(join(ROOT, 'images/profiles'))
  return hash.digest('hex')
}

function lintsAreThere() {
  return works('cargo', ['fmt', '--version'], NATIVE) && works('cargo', ['clippy', '--version'], NATIVE)
}

async function installLints(onLine) {
  await runOr(
    ['rustup', 'component', 'add', 'rustfmt', 'clippy'],
    { onLine, cwd: NATIVE },
    'rustfmt and clippy are missing',
  )
}

// System programs: what examples and tests use. Without them Mayfly runs, so they are never a reason to stop.

function absent() {
  const wanted = { ...EXAMPLES, ...(wants.has('--test') ? TESTS : {}), ...(wants.has('--vm') ? VM : {}) }
  const folders = [...(environment.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']
  const isThere = (program) => folders.some((folder) => fs.existsSync(join(folder, program)))
  return Object.keys(wanted).filter((name) => !isThere(wanted[name]))
}

async function installPrograms(onLine) {
  // Debian's gcc only recommends the headers without which it links nothing.
  const names = absent().flatMap((name) => (name === 'gcc' ? [name, 'libc6-dev'] : [name]))
  const install = ['apt-get', 'install', '--yes', '--no-install-recommends', ...names]
  if (process.geteuid() !== 0 || !works('apt-get', ['--version'])) {
    say(`- ${names.join(', ')}: not there; some examples and tests need them (${install.join(' ')})`)
    return
  }
  const env = { ...environment, DEBIAN_FRONTEND: 'noninteractive' }
  const attempt = await run(install, { onLine, env })
  if (attempt.code === 0) return
  // A machine that never fetched the list knows no package.
  await run(['apt-get', 'update'], { onLine, env })
  const second = await run(install, { onLine, env })
  if (second.code !== 0) say(`- ${names.join(', ')}: could not be installed (${install.join(' ')})\n${second.tail}`)
}

function refuseOldKernel() {
  const [large, small] = release().split('.').map(Number)
  const isOld = large < KERNEL_MIN[0] || (large === KERNEL_MIN[0] && small < KERNEL_MIN[1])
  if (process.platform !== 'linux' || isOld) {
    throw new Remedy(`${process.platform} ${release()} is too old: Mayfly needs Linux ${KERNEL_MIN.join('.')} or newer`)
  }
}

// One set-up at a time: two builds into one folder would each publish half of the other's.

async function lock() {
  fs.mkdirSync(STATE, { recursive: true })
  const path = join(STATE, 'setup.lock')
  let waits = false
  for (;;) {
    try {
      fs.writeFileSync(path, String(process.pid), { flag: 'wx' })
      break
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    const holder = readText(path)
    const isGone = holder !== undefined && holder !== '' && !fs.existsSync(`/proc/${holder}`)
    if (isGone) fs.rmSync(path, { force: true })
    else if (!waits) say(`… another set-up runs (process ${holder}); waiting for it`)
    waits = !isGone
    await new Promise((resolve) => setTimeout(resolve, isGone ? 0 : 500))
  }
  const release = () => fs.rmSync(path, { force: true })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.once(signal, () => {
      release()
      process.exit(130)
    })
  }
  return release
}

// Child processes and the terminal.

async function runOr(command, options, remedy) {
  const { code, tail } = await run(command, options)
  if (code === 0) return
  say(tail)
  throw new Remedy(`${remedy} (${command.join(' ')})`)
}

function run([program, ...args], { onLine, cwd = ROOT, env = environment }) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
    let tail = ''
    const onData = (chunk) => {
      tail = `${tail}${chunk}`.slice(-8000)
      const line = tail
        .trimEnd()
        .split(/[\r\n]/)
        .at(-1)
        ?.trim()
      if (line) onLine(line)
    }
    child.stdout.on('data', onData)
    child.stderr.on('data', onData)
    child.on('error', (error) => resolve({ code: 127, tail: error.message }))
    child.on('close', (code) => resolve({ code: code ?? 1, tail }))
  })
}

function works(program, args, cwd = ROOT) {
  return spawnSync(program, args, { cwd, env: environment, stdio: 'ignore' }).status === 0
}

function major(node) {
  const { status, stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' })
  return status === 0 ? Number(/^v(\d+)/.exec(stdout)?.[1] ?? 0) : 0
}

function readText(path) {
  try {
    return fs.readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

function readJson(path) {
  try {
    return JSON.parse(fs.readFileSync(path, 'utf8'))
  } catch {
    return undefined
  }
}

function secondsSince(started) {
  return `${((Date.now() - started) / 1000).toFixed(1)} s`
}

function progress(line) {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: cargo and npm color their lines
  const plain = line.replace(/\x1b\[[0-9;]*m/g, '')
  if (isTerminal) process.stderr.write(`\r\x1b[K${plain.slice(0, Math.max(20, process.stderr.columns - 1))}`)
}

function say(line) {
  process.stderr.write(`${isTerminal ? '\r\x1b[K' : ''}${line}\n`)
}

try {
  await main()
} catch (error) {
  if (!(error instanceof Remedy)) throw error
  say(`✗ ${error.message}`)
  process.exitCode = 1
}
