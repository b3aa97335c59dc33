// What is said at deploy of a command that could not run.
import { truncateSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { checkCommand } from '../../../images/deployable.ts'
import { encodeHeader } from '../../../images/tar.ts'
import { makeElf } from './_elf.ts'
import { build, createStore, type Files } from './_workspace.ts'

const OTHER_MACHINE = process.arch === 'arm64' ? 62 : 183
const IMAGE: Files = {
  'root/bin/static': new Uint8Array(makeElf()),
  'root/bin/dynamic': new Uint8Array(makeElf({ interpreter: '/lib/ld.so' })),
  'root/bin/loaderless': new Uint8Array(makeElf({ interpreter: '/lib/absent.so' })),
  'root/bin/misled': new Uint8Array(makeElf({ interpreter: '/bin/script' })),
  'root/bin/foreign': new Uint8Array(makeElf({ machine: OTHER_MACHINE })),
  'root/bin/foreign-loader': new Uint8Array(makeElf({ interpreter: '/lib/foreign.so' })),
  'root/lib/ld.so': new Uint8Array(makeElf()),
  'root/lib/foreign.so': new Uint8Array(makeElf({ machine: OTHER_MACHINE })),
  'root/bin/script': '#!/bin/static -x\n',
  'root/bin/nested': '#!/bin/script\n',
  'root/bin/env': new Uint8Array(makeElf()),
  'root/bin/env-script': '#!/bin/env -S static -u\n',
  'root/bin/env-lost': '#!/bin/env python9\n',
  'root/bin/lost': '#!/bin/absent\n',
  'root/bin/windows': '#!/bin/static\r\n',
  'root/bin/relative': '#!static\n',
  'root/bin/loop': '#!/bin/loop\n',
  'root/bin/text': 'echo hello\n',
  'root/bin/empty': '',
  'root/bin/sub/x': '',
  'root/bin/dangling': { link: 'nowhere' },
  'root/bin/circle': { link: 'circle' },
  'root/sbin': { link: 'bin' },
  'root/opt/up': { link: '../../../bin/static' },
}
const ENV = { PATH: '/nowhere:/sbin' }

async function check(command: string, { cwd = '/', env = ENV, extra = [] as string[] } = {}) {
  const store = createStore()
  const image = await build(['COPY --chmod=755 root /', ...extra], { ...IMAGE, closed: makeElfFile() }, store)
  return await checkCommand(image, store, { argv: [command], env, cwd })
}

function makeElfFile(): Uint8Array {
  return new Uint8Array(makeElf())
}

describe('a command', () => {
  it.each([
    ['/bin/static', '/bin/static'],
    ['/bin/dynamic', '/bin/dynamic'],
    ['static', '/sbin/static'],
    ['/sbin/script', '/sbin/script'],
    ['/bin/nested', '/bin/nested'],
    ['/bin/env-script', '/bin/env-script'],
    ['/opt/up', '/opt/up'],
    ['./static', '/bin/static', '/bin'],
    ['../bin/static', '/bin/static', '/opt'],
  ])('%s is found at %s', async (command, path, cwd = '/') => {
    expect(await check(command, { cwd })).toBe(path)
  })

  it.each([
    ['absent', 'INVALID_MANIFEST', /"absent" cannot be run: it is in none of .*\/nowhere:\/sbin/],
    ['/bin/absent', 'INVALID_MANIFEST', /the image has no \/bin\/absent/],
    ['/bin/static/x', 'INVALID_MANIFEST', /the image has no/],
    ['/bin/dangling', 'INVALID_MANIFEST', /the image has no \/bin\/dangling/],
    ['/bin/circle', 'INVALID_MANIFEST', /the image has no \/bin\/circle/],
    ['/bin/sub', 'INVALID_IMAGE', /\/bin\/sub is a folder/],
    ['/bin/foreign', 'INVALID_IMAGE', /is a program for (AArch64|x86-64)/],
    [
      '/bin/loaderless',
      'INVALID_IMAGE',
      /dynamically linked and its loader \/lib\/absent\.so is not in the image.*image pack/,
    ],
    ['/bin/misled', 'INVALID_IMAGE', /\/bin\/script, the loader of \/bin\/misled, is no ELF file/],
    ['/bin/foreign-loader', 'INVALID_IMAGE', /\/lib\/foreign\.so, the loader of .*, is for/],
    ['/bin/lost', 'INVALID_IMAGE', /\/bin\/lost is a script for \/bin\/absent, which the image does not have/],
    ['/bin/env-lost', 'INVALID_IMAGE', /is run by python9, which the image does not have/],
    ['/bin/windows', 'INVALID_IMAGE', /CR LF/],
    ['/bin/relative', 'INVALID_IMAGE', /"static" is no absolute path/],
    ['/bin/loop', 'INVALID_IMAGE', /nested too deep/],
    ['/bin/text', 'INVALID_IMAGE', /neither an ELF program nor a script/],
    ['/bin/empty', 'INVALID_IMAGE', /neither an ELF program nor a script/],
  ])('%s is refused with %s', async (command, code, message) => {
    await expect(check(command)).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
  })

  it('needs to be executable for others, and every folder on the way', async () => {
    const closed = { extra: ['COPY --chmod=0750 closed /bin/closed'] }
    await expect(check('/bin/closed', closed)).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringMatching(/not executable for others \(mode 0750\)/),
    })
    const hidden = { extra: ['COPY --chmod=0700 root/lib /hidden', 'COPY --chmod=755 closed /hidden/p'] }
    await expect(check('/hidden/p', hidden)).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringContaining('the folder /hidden has no x'),
    })
  })

  it('passes over what it may not run on PATH', async () => {
    const env = { PATH: '/first:/bin' }
    expect(await check('static', { env, extra: ['COPY --chmod=0644 closed /first/static'] })).toBe('/bin/static')
  })

  it('needs a script that others may read', async () => {
    const extra = ['COPY --chmod=0711 root/bin/script /bin/unreadable']
    await expect(check('/bin/unreadable', { extra })).rejects.toThrow(/may not read/)
  })
})

describe('a working directory', () => {
  it.each(['/', '/tmp', '/dev/shm', '/bin', '/sbin/sub'])('may be %s', async (cwd) => {
    expect(await check('/bin/static', { cwd })).toBe('/bin/static')
  })

  it.each([
    ['/absent', 'INVALID_MANIFEST', /no folder \/absent/],
    ['/bin/static', 'INVALID_MANIFEST', /\/bin\/static is no folder/],
    ['/bin/static/x', 'INVALID_MANIFEST', /no folder/],
  ])('may not be %s', async (cwd, code, message) => {
    await expect(check('/bin/static', { cwd })).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
  })

  it('needs to be open to others', async () => {
    const extra = ['COPY --chmod=0700 root/lib /private']
    await expect(check('/bin/static', { cwd: '/private', extra })).rejects.toMatchObject({ code: 'INVALID_IMAGE' })
  })
})

describe('the layers of an image', () => {
  const spec = { argv: ['/p'], env: {}, cwd: '/' }
  const entry = (over: object) =>
    encodeHeader({ path: 'p', type: 'file', mode: 0o755, size: 0, linkname: '', mtimeSeconds: 0, ...over })
  const program = Buffer.concat([makeElf(), Buffer.alloc(512 - 64)])
  const tar = (...blocks: Buffer[]) => Buffer.concat([...blocks, Buffer.alloc(1024)])

  it('hide what is below them', async () => {
    const store = createStore()
    const base = await store.putBlob(tar(entry({ size: 64 }), program, entry({ path: 'd', type: 'directory' })))
    const text = await store.putBlob(tar(entry({ path: 'p' })))
    const folder = await store.putBlob(tar(entry({ path: 'p', type: 'directory' }), entry({ path: 'p/q' })))
    await expect(checkCommand({ layers: [base] }, store, spec)).resolves.toBe('/p')
    await expect(checkCommand({ layers: [base, text] }, store, spec)).rejects.toThrow(/neither an ELF program/)
    await expect(checkCommand({ layers: [base, folder] }, store, spec)).rejects.toThrow(/is a folder/)
    await expect(checkCommand({ layers: [folder, base] }, store, spec)).resolves.toBe('/p')
    const below = { ...spec, argv: ['/p/q'] }
    await expect(checkCommand({ layers: [folder, base] }, store, below)).rejects.toThrow(/the image has no/)
  })

  it.each([
    ['a deletion', entry({ path: 'd/.wh.p' })],
    ['a hard link', entry({ type: 'hardlink', linkname: 'etc/passwd' })],
  ])('may not hold %s', async (kind, block) => {
    const store = createStore()
    const layer = await store.putBlob(tar(block))
    await expect(checkCommand({ layers: [layer] }, store, spec)).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringContaining(kind),
    })
  })

  it('are refused when they are damaged, and read again once they are mended', async () => {
    const store = createStore()
    const content = tar(entry({ size: 64 }), program)
    const layer = await store.putBlob(content)
    truncateSync(store.blobPath(layer), 700)
    await expect(checkCommand({ layers: [layer] }, store, spec)).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringContaining('damaged'),
    })
    writeFileSync(store.blobPath(layer), content)
    expect(await checkCommand({ layers: [layer] }, store, spec)).toBe('/p')
  })

  it('are refused when they are missing', async () => {
    const layer = `sha256:${'0'.repeat(64)}`
    await expect(checkCommand({ layers: [layer] }, createStore(), spec)).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
    })
  })
})
