// Whether the house stands as ARCHITECTURE.md draws it: who may import whom, how long a file may be, what occurs in one
// place only. Compared with tables; a change of a table is a change of the design.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, it } from 'vitest'

const ROOT = join(import.meta.dirname, '..')
const tracked = execFileSync('git', ['ls-files', '-co', '--exclude-standard', '-z'], { cwd: ROOT, encoding: 'utf8' })
const files = tracked.split('\0').filter((path) => path !== '' && exists(path))
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const typescript = files.filter((path) => /\.(ts|mjs)$/.test(path))
const rust = files.filter((path) => /^native\/.*\.rs$/.test(path))
const linesOf = (text: string) => text.split('\n').length - 1

/** Folder or file, and what it may import of ours besides itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  contract: [],
  native: ['contract'],
  images: ['contract'],
  worker: ['contract', 'native', 'images'],
  gateway: ['contract', 'images'],
  // The composition root of the embedded mode.
  'gateway/server.ts': ['contract', 'images', 'worker', 'examples'],
  examples: ['contract', 'images'],
  cli: ['contract', 'images', 'gateway', 'native', 'worker'],
  bench: ['contract', 'images', 'native', 'worker', 'gateway', 'examples'],
  test: ['contract', 'images', 'native', 'worker', 'gateway', 'examples', 'cli', 'bench'],
}

function exists(path: string): boolean {
  try {
    readFileSync(join(ROOT, path))
    return true
  } catch {
    return false
  }
}

/** Files of ours that a file imports, as paths from the root. */
function importsOf(path: string): string[] {
  const specifiers = read(path).matchAll(/^(?:import|export)\b[^;]*?from '(\.[^']*)'|\bimport\('(\.[^']*)'\)/gm)
  return [...specifiers].map(([, fixed, lazy]) => normalize(join(dirname(path), fixed ?? lazy ?? '')))
}

describe('imports', () => {
  it('run in the directions of the table', () => {
    const wrong = typescript.flatMap((path) => {
      const folder = path.split('/')[0] ?? ''
      const allowed = MAY_IMPORT[path] ?? MAY_IMPORT[folder] ?? []
      return importsOf(path)
        .filter((target) => target.includes('/') && ![folder, ...allowed].includes(target.split('/')[0] ?? ''))
        .map((target) => `${path} -> ${target}`)
    })
    expect(wrong).toEqual([])
  })

  it('make no circle', () => {
    const done = new Set<string>()
    const circles: string[] = []
    const visit = (path: string, way: readonly string[]): void => {
      if (way.includes(path)) circles.push([...way.slice(way.indexOf(path)), path].join(' -> '))
      if (done.has(path) || way.includes(path)) return
      for (const target of importsOf(path).filter((one) => typescript.includes(one))) visit(target, [...way, path])
      done.add(path)
    }
    for (const path of typescript) visit(path, [])
    expect(circles).toEqual([])
  })

  it('are all there once the server has given up root', () => {
    const served = typescript.filter((path) => /^(contract|gateway|images|native|worker)\//.test(path))
    expect(served.filter((path) => /\bimport\(/.test(read(path)))).toEqual([])
  })
})

describe('one place only', () => {
  const places = (paths: readonly string[], pattern: RegExp) => paths.filter((path) => pattern.test(read(path)))
  const sources = typescript.filter((path) => !/^(test|bench)\//.test(path))

  it('reads the environment', () => {
    // The set-up runs before there is a Node that reads TypeScript.
    expect(places(sources, /process\.env\b/)).toEqual(['cli/setup.mjs', 'contract/config.ts'])
  })

  it('loads the addon', () => {
    expect(places(sources, /\bcreateRequire\b|process\.dlopen/).filter((path) => path !== 'native/index.ts')).toEqual(
      [],
    )
  })

  it('maps an error to an HTTP status', () => {
    expect(places(sources, /\bCODES\[/)).toEqual(['gateway/error-response.ts'])
  })

  it('is unsafe, and the addon alone knows napi', () => {
    const unsafe = places(rust, /\bunsafe\s*(\{|fn|impl|extern)/)
    expect(unsafe.filter((path) => !/^native\/(core\/src\/sys|core\/tests|addon)\//.test(path))).toEqual([])
    expect(places(rust, /\bnapi\b/).filter((path) => !path.startsWith('native/addon/'))).toEqual([])
  })
})

describe('every file', () => {
  const withoutTests = (text: string) => text.split(/^#\[cfg\(test\)\]$/m)[0] ?? ''

  it('stays within its budget of lines', () => {
    const long = [
      ...typescript.filter((path) => !path.startsWith('test/') && linesOf(read(path)) > 300),
      ...rust.filter((path) => linesOf(withoutTests(read(path))) > 500),
    ]
    // The set-up is one file because nothing may be there yet that it could import.
    expect(long.filter((path) => path !== 'cli/setup.mjs')).toEqual([])
  })

  it('says first what it is for', () => {
    const silent = [...typescript, ...rust].filter((path) => !/^(#!.*\n)?(\/\/|\/\*\*)/.test(read(path)))
    expect(silent).toEqual([])
  })

  it('names no path of somebody’s machine', () => {
    const pattern = new RegExp(`(?<![\\w.])/(?:${['work', 'root', 'home/[a-z]+'].join('|')})/`)
    const texts = files.filter((path) => /\.(ts|mjs|rs|md|json|toml|yaml|c|h|sh)$|Dockerfile$|^\.ci\//.test(path))
    expect(texts.filter((path) => path !== 'package-lock.json' && pattern.test(read(path)))).toEqual([])
  })
})

describe('SECURITY.md', () => {
  it('names tests that are there', () => {
    const named = [...read('SECURITY.md').matchAll(/`((?:test|native)\/[\w/.-]+)`/g)].map(([, path = '']) => path)
    expect(named.filter((path) => !exists(path))).toEqual([])
  })
})

describe('the library', () => {
  it('exports what the README shows, and its types', () => {
    const exported = [...read('worker/pool.ts').matchAll(/^export (?:async )?(?:function|const|class) (\w+)/gm)]
    expect(exported.map(([, name]) => name)).toEqual(['openPool'])
  })

  it('has a reason in ARCHITECTURE.md for every dependency', () => {
    const { dependencies, devDependencies } = JSON.parse(read('package.json')) as Record<string, Record<string, string>>
    const cargo = read('native/Cargo.toml').split('[workspace.dependencies]')[1]?.split('\n[')[0] ?? ''
    const crates = [...cargo.matchAll(/^([\w-]+) =/gm)]
      .map(([, name = '']) => name)
      .filter((name) => name !== 'mayfly-core')
    const names = [...Object.keys(dependencies ?? {}), ...Object.keys(devDependencies ?? {}), ...crates]
    const text = read('ARCHITECTURE.md')
    expect(names.filter((name) => !text.includes(`\`${name}\``))).toEqual([])
  })
})
