// That a store never holds half a blob, half a reference or an image it cannot vouch for.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openStore } from '../../../images/store.ts'
import { build, createFolder, createStore } from './_workspace.ts'

const staging = (home: string) => readdirSync(join(home, 'staging'))
const ABSENT = `sha256:${'0'.repeat(64)}`

describe('a store', () => {
  it('keeps a blob under the digest of its bytes, whatever they come from', async () => {
    const store = createStore()
    async function* chunks() {
      yield Buffer.from('hel')
      yield Buffer.from('lo')
    }
    const digest = 'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
    expect(await store.putBlob(chunks())).toBe(digest)
    expect(await store.putBlob('hello')).toBe(digest)
    expect(staging(store.home)).toEqual([])
  })

  it('leaves nothing of a blob whose source fails', async () => {
    const store = createStore()
    async function* failing() {
      yield Buffer.from('x')
      throw new Error('source is gone')
    }
    await expect(store.putBlob(failing())).rejects.toThrow('source is gone')
    expect([...staging(store.home), ...readdirSync(join(store.home, 'blobs/sha256'))]).toEqual([])
  })

  it('sweeps what a crashed writer left and spares what a living one writes', () => {
    const store = createStore()
    const gone = spawnSync('true').pid
    writeFileSync(join(store.home, 'staging', `${gone}-1-abc`), 'half')
    mkdirSync(join(store.home, 'staging', `${process.pid}-1-folder-of-an-earlier-process-with-this-id`))
    const started = readFileStartTime()
    writeFileSync(join(store.home, 'staging', `${process.pid}-${started}-mine`), 'being written')
    openStore(store.home)
    expect(staging(store.home)).toEqual([`${process.pid}-${started}-mine`])
  })

  it('holds nothing of a writer that is killed, once it is opened again', async () => {
    const store = createStore()
    const writer = `
      import { openStore } from ${JSON.stringify(new URL('../../../images/store.ts', import.meta.url).href)}
      async function* endless() { for (;;) yield Buffer.alloc(1 << 20) }
      await openStore(${JSON.stringify(store.home)}).putBlob(endless())`
    const child = spawn(process.execPath, ['--input-type=module', '--eval', writer], { stdio: 'ignore' })
    await expect.poll(() => staging(store.home).length, { timeout: 10_000 }).toBe(1)
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
    openStore(store.home)
    expect([...staging(store.home), ...readdirSync(join(store.home, 'blobs/sha256'))]).toEqual([])
  })

  it('reads an image by tag, by short tag and by digest', async () => {
    const store = createStore()
    const image = await build(['COPY a /a'], { a: 'x' }, store)
    await store.tag('group/name:v1.0', image.digest)
    await store.tag('short', image.digest)
    for (const ref of ['group/name:v1.0', 'short', 'short:latest', image.digest]) {
      expect(await store.readImage(ref)).toEqual(image)
    }
    expect(await store.list()).toEqual([
      { digest: image.digest, tags: ['group/name:v1.0', 'short:latest'], layerBytes: 2048 },
    ])
  })

  it('keeps its images when it is opened again', async () => {
    const store = createStore()
    const image = await build(['COPY a /a'], { a: 'x' }, store)
    expect(await openStore(store.home).readImage(image.digest)).toEqual(image)
  })

  it.each(['../escape', 'a/../b', '/abs', 'UPPER', 'a b', '', 'a:../b', 'sha256:abc', `x${'y'.repeat(200)}`])(
    'refuses %j as a name',
    async (name) => {
      const store = createStore()
      const image = await build([], {}, store)
      await expect(store.tag(name, image.digest)).rejects.toMatchObject({ code: 'INVALID_IMAGE' })
      await expect(store.readImage(name)).rejects.toMatchObject({ code: 'INVALID_IMAGE' })
    },
  )

  it('says which image it does not have', async () => {
    const store = createStore()
    for (const ref of ['absent', ABSENT]) {
      await expect(store.readImage(ref)).rejects.toMatchObject({
        code: 'IMAGE_NOT_FOUND',
        message: expect.stringContaining(ref),
      })
    }
    await expect(store.tag('x', ABSENT)).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' })
    expect(() => store.blobPath('sha256:../../etc/passwd')).toThrow(expect.objectContaining({ code: 'INVALID_IMAGE' }))
  })

  it('refuses a truncated layer, and building again mends it', async () => {
    const store = createStore()
    const image = await build(['COPY a /a'], { a: 'x' }, store)
    truncateSync(store.blobPath(image.layers[0] as string), 100)
    await expect(store.readImage(image.digest)).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringContaining('100 bytes instead of 2048'),
    })
    await build(['COPY a /a'], { a: 'x' }, store)
    expect(await store.readImage(image.digest)).toEqual(image)
  })

  it('refuses a layer of the right size with other bytes', async () => {
    const store = createStore()
    const image = await build(['COPY a /a'], { a: 'x' }, store)
    writeFileSync(store.blobPath(image.layers[0] as string), Buffer.alloc(2048))
    await expect(store.verifyBlob(image.layers[0] as string)).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringContaining('damaged'),
    })
  })

  it.each([
    ['other bytes', '{}'],
    ['no JSON', 'x'],
  ])('refuses a manifest with %s', async (_, content) => {
    const store = createStore()
    const image = await build([], {}, store)
    writeFileSync(store.blobPath(image.digest), content)
    await expect(store.readImage(image.digest)).rejects.toMatchObject({ code: 'INVALID_IMAGE' })
  })

  it.each([
    ['a digest that climbs', { digest: 'sha256:../../../etc/passwd' }],
    ['another algorithm', { digest: `sha512:${'0'.repeat(128)}` }],
    ['a foreign media type', { mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar' }],
    ['a negative size', { size: -1 }],
  ])('refuses a manifest whose layer has %s', async (_, wrong) => {
    const store = createStore()
    const layer = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: ABSENT, size: 0, ...wrong }
    await expectRefused(store, { layers: [layer] })
  })

  it('refuses a manifest that names a layer twice, or too many', async () => {
    const store = createStore()
    const layer = (hex: number) => ({
      mediaType: 'application/vnd.oci.image.layer.v1.tar',
      digest: `sha256:${hex.toString(16).padStart(64, '0')}`,
      size: 0,
    })
    await expectRefused(store, { layers: [layer(1), layer(1)] })
    await expectRefused(store, { layers: Array.from({ length: 10_000 }, (_, index) => layer(index)) })
  })

  it('drops blobs with the last image that names them', async () => {
    const store = createStore()
    const one = await build(['COPY a /a'], { a: 'x' }, store)
    const two = await build(['COPY a /a', 'ENV x=1'], { a: 'x' }, store)
    const [layer] = one.layers as [string]
    await store.tag('one', one.digest)
    await store.tag('uno', one.digest)
    await store.remove('uno')
    expect((await store.list()).map(({ digest }) => digest)).toContain(one.digest)
    await store.remove('one')
    await expect(store.readImage(one.digest)).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' })
    expect(existsSync(store.blobPath(layer))).toBe(true)
    await store.remove(two.digest)
    expect(readdirSync(join(store.home, 'blobs/sha256'))).toEqual([])
  })

  it('spares a young blob that no image names yet, and drops an old one', async () => {
    const store = createStore()
    const image = await build([], {}, store)
    const [young, old] = [await store.putBlob('young'), await store.putBlob('old')]
    utimesSync(store.blobPath(old), 0, 0)
    await store.remove(image.digest)
    expect([existsSync(store.blobPath(young)), existsSync(store.blobPath(old))]).toEqual([true, false])
  })

  it('removes an image whose manifest is damaged', async () => {
    const store = createStore()
    const image = await build([], {}, store)
    writeFileSync(store.blobPath(image.digest), 'x')
    await store.remove(image.digest)
    await expect(store.readImage(image.digest)).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' })
  })

  it('refuses a link in place of its folders', () => {
    const home = createFolder()
    mkdirSync(join(home, 'blobs'))
    symlinkSync('/etc', join(home, 'blobs/sha256'))
    expect(() => openStore(home)).toThrow(/is not a folder/)
  })

  it.runIf(process.getuid?.() === 0)('gives what root writes to the owner of the home', async () => {
    const home = createFolder()
    chownSync(home, 4242, 4343)
    const store = openStore(home)
    const image = await build(['COPY a /a'], { a: 'x' }, store)
    const paths = [join(home, 'blobs'), join(home, 'refs'), join(home, 'staging'), store.blobPath(image.digest)]
    paths.push(...readdirSync(join(home, 'refs')).map((name) => join(home, 'refs', name)))
    expect(paths.map((path) => [lstatSync(path).uid, lstatSync(path).gid])).toEqual(paths.map(() => [4242, 4343]))
    expect(statSync(store.blobPath(image.digest)).mode & 0o777).toBe(0o644)
  })
})

function readFileStartTime(): string {
  const { stdout } = spawnSync('cut', ['-d', ' ', '-f', '22', `/proc/${process.pid}/stat`], { encoding: 'utf8' })
  return stdout.trim()
}

/** Puts a manifest that only differs by `wrong` from a right one into the store, by its true digest. */
async function expectRefused(store: ReturnType<typeof createStore>, wrong: object): Promise<void> {
  const config = { mediaType: 'application/vnd.oci.image.config.v1+json', digest: ABSENT, size: 0 }
  const digest = await store.putBlob(JSON.stringify({ schemaVersion: 2, config, layers: [], ...wrong }))
  writeFileSync(join(store.home, 'refs', encodeURIComponent(digest)), digest)
  await expect(store.readImage(digest)).rejects.toMatchObject({ code: 'INVALID_IMAGE' })
}
