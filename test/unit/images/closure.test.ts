// That a packed program has what the host's own loader would give it.
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { packBinary } from '../../../images/closure.ts'
import { checkCommand } from '../../../images/deployable.ts'
import { readElfFile } from '../../../images/libraries.ts'
import { makeElf } from './_elf.ts'
import { createFolder, createStore, pathsOf, readFromLayer, writeFiles } from './_workspace.ts'

/** Absolute paths of the files and links of the image that a pack makes. */
async function pack(path: string, options: Partial<Parameters<typeof packBinary>[0]> = {}) {
  const store = createStore()
  const said: string[] = []
  const image = await packBinary({ store, path, onProgress: (line) => said.push(line), ...options })
  const [layer] = image.layers as [string]
  const paths = pathsOf(store, layer).map((line) => `/${line.replace(/ -> .*/, '')}`)
  return { image, store, layer, paths, said }
}

/** What the host's own loader would load: the paths after `=>` of ldd. */
function lddPaths(path: string): string[] {
  const text = execFileSync('ldd', [path], { encoding: 'utf8' })
  return [...text.matchAll(/(?:=> |^\s*)(\/\S+) \(/gm)].map(([, found]) => realpathSync(found as string))
}

describe('packing a program', () => {
  it.each(['/bin/true', '/bin/sh', '/usr/bin/tar'])('brings %s with what its loader would load', async (path) => {
    const { image, store, paths } = await pack(path)
    expect(paths).toEqual(expect.arrayContaining([realpathSync(path), ...lddPaths(path)]))
    expect(image.config.entrypoint).toEqual([path])
    expect(await checkCommand(image, store, { argv: [path], env: {}, cwd: '/' })).toBe(path)
  })

  it('brings an interpreter and what is included for it, extension modules with their libraries', async () => {
    const facts = 'import os, sys, _hashlib; print(os.path.realpath(sys.executable)); print(_hashlib.__file__)'
    const [python, module] = execFileSync('python3', ['-I', '-c', facts], { encoding: 'utf8' }).trim().split('\n') as [
      string,
      string,
    ]
    const { paths, store, layer } = await pack(python, {
      include: [module, { from: writeFiles(createFolder(), { 'main.py': 'print()' }), to: '/function' }],
      entrypoint: [python, '/function/main.py'],
    })
    expect(paths).toEqual(
      expect.arrayContaining([python, ...lddPaths(python), realpathSync(module), ...lddPaths(module)]),
    )
    expect(readFromLayer(store, layer, 'function/main.py')).toBe('print()')
  })

  it('keeps the links by which things are found', async () => {
    const folder = createFolder()
    symlinkSync('/bin/true', join(folder, 'alias'))
    const { image, store, paths } = await pack(join(folder, 'alias'))
    expect(paths).toContain(join(folder, 'alias'))
    expect(await checkCommand(image, store, { argv: image.config.entrypoint, env: {}, cwd: '/' })).toBe(
      join(folder, 'alias'),
    )
  })

  it('brings the interpreter of a script, and says so', async () => {
    const folder = writeFiles(createFolder(), {
      'by-path': { text: '#!/bin/sh -e\n', mode: 0o700 },
      'by-env': { text: '#!/usr/bin/env sh\n', mode: 0o755 },
    })
    const first = await pack(join(folder, 'by-path'))
    expect(first.paths).toEqual(expect.arrayContaining(['/bin', realpathSync('/bin/sh'), ...lddPaths('/bin/sh')]))
    expect(first.said[0]).toBe(`${join(folder, 'by-path')} is a script; /bin/sh is packed too`)
    const second = await pack(join(folder, 'by-env'))
    expect(second.paths).toEqual(expect.arrayContaining([realpathSync('/usr/bin/env'), realpathSync('/bin/sh')]))
    expect(
      await checkCommand(second.image, second.store, { argv: [join(folder, 'by-env')], env: {}, cwd: '/' }),
    ).toBeTruthy()
  })

  it('follows RUNPATH with $ORIGIN, and links a library found in a configured folder beside libc', async () => {
    const folder = createFolder()
    mkdirSync(join(folder, 'lib'))
    writeFiles(folder, {
      'leaf.c': 'int leaf(void) { return 7; }',
      'main.c': 'int leaf(void); int main(void) { return leaf(); }',
    })
    const gcc = (...argv: string[]) => execFileSync('gcc', argv, { cwd: folder })
    gcc('-shared', '-fPIC', '-o', 'lib/libleaf.so.1', '-Wl,-soname,libleaf.so.1', 'leaf.c')
    gcc('-o', 'main', 'main.c', 'lib/libleaf.so.1', '-Wl,-rpath,$ORIGIN/lib')
    const { paths } = await pack(join(folder, 'main'))
    expect(paths).toContain(join(folder, 'lib/libleaf.so.1'))
    gcc('-o', 'lost', 'main.c', 'lib/libleaf.so.1')
    const libc = lddPaths('/bin/true').find((found) => found.includes('libc')) as string
    const configured = await pack(join(folder, 'lost'), { libraryFolders: [join(folder, 'lib')] })
    expect(configured.paths).toEqual(
      expect.arrayContaining([join(folder, 'lib/libleaf.so.1'), join(dirname(libc), 'libleaf.so.1')]),
    )
    await expect(pack(join(folder, 'lost'))).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringMatching(/lost needs libleaf\.so\.1, which is not on this machine/),
    })
  })

  it('has the same digest every time', async () => {
    expect((await pack('/bin/true')).image.digest).toBe((await pack('/bin/true')).image.digest)
  })

  it.each([
    [
      'a program for another machine',
      makeElf({ machine: process.arch === 'arm64' ? 62 : 183 }),
      /is a program for (AArch64|x86-64); this machine is/,
    ],
    ['a 32-bit program', makeElf({ machine: 3, bits: 32 }), /is a program for x86 \(32-bit\)/],
    ['an unknown machine', makeElf({ machine: 4711 }), /machine 4711/],
    ['a damaged program', makeElf({ interpreter: '/lib/ld.so' }).subarray(0, 100), /damaged ELF/],
    ['a file that is neither', Buffer.from('hello'), /neither an ELF program nor a script/],
    ['a script without interpreter', Buffer.from('#!\n'), /names no interpreter/],
    ['a script with CR LF', Buffer.from('#!/bin/sh\r\n'), /CR LF/],
    ['a script whose interpreter is absent', Buffer.from('#!/absent/interpreter\n'), /cannot be read: ENOENT/],
    [
      'a script for a program that is not installed',
      Buffer.from('#!/usr/bin/env absent-program\n'),
      /absent-program, which is not in any of/,
    ],
  ])('refuses %s', async (_, content, message) => {
    const path = join(createFolder(), 'program')
    writeFileSync(path, content)
    chmodSync(path, 0o755)
    await expect(pack(path)).rejects.toMatchObject({ code: 'INVALID_IMAGE', message: expect.stringMatching(message) })
  })

  it('refuses what is not there', async () => {
    await expect(pack('/absent/program')).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringContaining('ENOENT at /absent'),
    })
  })
})

describe('an ELF file', () => {
  it('says what it needs as readelf does', async () => {
    const path = realpathSync('/bin/sh')
    const text = execFileSync('readelf', ['--wide', '--dynamic', '--program-headers', path], { encoding: 'utf8' })
    const elf = await readElfFile(path)
    expect(elf?.needed).toEqual([...text.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name]) => name))
    expect(elf?.interpreter).toBe(/interpreter: (.*)\]/.exec(text)?.[1])
  })

  it('may be cut off anywhere without harm', async () => {
    const folder = createFolder()
    const whole = makeElf({ interpreter: '/lib/ld.so' })
    for (let length = 0; length < whole.length; length++) {
      const path = join(folder, basename(String(length)))
      writeFileSync(path, whole.subarray(0, length))
      const outcome = await readElfFile(path).catch((error: { code?: string }) => error.code)
      expect(outcome === undefined || outcome === 'INVALID_IMAGE' || typeof outcome === 'object').toBe(true)
    }
  })
})
