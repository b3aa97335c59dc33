// That others read what is written, and that what others write is read the same way or refused.
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { open, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { fileNode, folderNode, LayerDraft, linkNode } from '../../../images/layer.ts'
import { encodeHeader, readTar, type TarEntry } from '../../../images/tar.ts'
import { createFolder, createStore } from './_workspace.ts'

const LONG = `${'folder/'.repeat(40)}${'n'.repeat(120)}`

/** Each entry of a tar as Python's tarfile, a reader that is not ours, finds it. */
const PYTHON_READER = `
import hashlib, json, sys, tarfile
entries = []
with tarfile.open(sys.argv[1], "r:") as archive:
    for entry in archive:
        content = archive.extractfile(entry).read() if entry.isfile() else b""
        entries.append([entry.name, entry.type.decode(), oct(entry.mode), entry.uid, entry.gid, entry.uname, entry.mtime,
                        entry.linkname, hashlib.sha256(content).hexdigest()])
print(json.dumps(entries))
`
const sha256 = (content: string | Uint8Array) => createHash('sha256').update(content).digest('hex')

async function entriesOf(bytes: Uint8Array): Promise<TarEntry[]> {
  const path = join(createFolder(), 'layer.tar')
  await writeFile(path, bytes)
  const file = await open(path)
  try {
    const entries: TarEntry[] = []
    for await (const entry of readTar(file, bytes.length)) entries.push(entry)
    return entries
  } finally {
    await file.close()
  }
}

const END = Buffer.alloc(1024)
const header = (over: Partial<Parameters<typeof encodeHeader>[0]>) =>
  encodeHeader({ path: 'a', type: 'file', mode: 0o644, size: 0, linkname: '', mtimeSeconds: 0, ...over })

/** A header with some bytes overwritten and its checksum right again. */
function forged(block: Buffer, ...changes: readonly (readonly [at: number, text: string])[]): Buffer {
  const copy = Buffer.from(block)
  for (const [at, text] of changes) copy.write(text, at, 'latin1')
  copy.write('        ', 148)
  const sum = copy.reduce((total, byte) => total + byte, 0)
  copy.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return copy
}

function paxed(records: string, block: Buffer): Buffer {
  const body = Buffer.alloc(512)
  body.write(records)
  const size = Buffer.byteLength(records).toString(8).padStart(11, '0')
  return Buffer.concat([forged(header({ path: 'pax' }), [156, 'x'], [124, size]), body, block])
}

describe('a layer', () => {
  it('is read by others as it was meant', async () => {
    const store = createStore()
    const layer = new LayerDraft()
    layer.place(`/${LONG}`, fileNode(Buffer.from('long'), 4, 0o755))
    layer.place('/zwölf/ß', fileNode(Buffer.from('utf-8'), 5, 0o600))
    layer.place('/link', linkNode(LONG))
    layer.place('/a-b', fileNode(Buffer.alloc(0), 0, 0o4777))
    layer.ensureFolder('/a/b', 0o1777)
    const digest = await layer.write(store, 1_700_000_000)
    const text = execFileSync('python3', ['-I', '-c', PYTHON_READER, store.blobPath(digest)], { encoding: 'utf8' })
    const folders = LONG.split('/')
      .slice(0, -1)
      .map((_, index, parts) => parts.slice(0, index + 1).join('/'))
    const entry = (name: string, type: string, mode: string, link = '', content = '') => [
      name,
      type,
      mode,
      0,
      0,
      '',
      1_700_000_000,
      link,
      sha256(content),
    ]
    expect(JSON.parse(text)).toEqual([
      entry('a', '5', '0o755'),
      entry('a-b', '0', '0o777'),
      entry('a/b', '5', '0o1777'),
      ...folders.map((path) => entry(path, '5', '0o755')),
      entry(LONG, '0', '0o755', '', 'long'),
      entry('link', '2', '0o777', LONG),
      entry('zwölf', '5', '0o755'),
      entry('zwölf/ß', '0', '0o600', '', 'utf-8'),
    ])
  })

  it('is one stream, however large its files are', async () => {
    const folder = createFolder()
    const path = join(folder, 'big')
    await writeFile(path, Buffer.alloc(5_000_000, 'y'))
    const [store, layer] = [createStore(), new LayerDraft()]
    layer.place('/big', fileNode(path, 5_000_000, 0o644))
    const digest = await layer.write(store, 0)
    await store.verifyBlob(digest)
  })

  it('is refused when a file changes while it is copied', async () => {
    const path = join(createFolder(), 'log')
    await writeFile(path, 'grown since')
    const layer = new LayerDraft()
    layer.place('/log', fileNode(path, 3, 0o644))
    await expect(layer.write(createStore(), 0)).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringContaining('changed while'),
    })
  })

  it('does not put a file where a folder is, nor a folder where a file is', () => {
    const layer = new LayerDraft()
    layer.place('/a/b', fileNode(Buffer.alloc(0), 0, 0o644))
    expect(() => layer.place('/a', linkNode('b'))).toThrow(/is a folder/)
    expect(() => layer.ensureFolder('/a/b')).toThrow(/is no folder/)
  })

  it('is not led round in circles by links', () => {
    const layer = new LayerDraft()
    layer.place('/one', linkNode('two'))
    layer.place('/two', linkNode('/one'))
    expect(() => layer.place('/one/x', linkNode('y'))).toThrow(/cannot be made/)
  })
})

describe('reading a tar', () => {
  it('finds what was written, long and non-ASCII names too', async () => {
    const blocks = [
      header({ path: LONG, size: 3 }),
      Buffer.concat([Buffer.from('abc'), Buffer.alloc(509)]),
      header({ path: 'ü', type: 'directory', mode: 0o700 }),
      header({ type: 'symlink', linkname: LONG }),
    ]
    expect(await entriesOf(Buffer.concat([...blocks, END]))).toMatchObject([
      { path: LONG, type: 'file', size: 3, mode: 0o644 },
      { path: 'ü', type: 'directory', mode: 0o700 },
      { path: 'a', type: 'symlink', linkname: LONG },
    ])
  })

  it.each(['pax', 'gnu', 'ustar'])('agrees with GNU tar on its %s format', async (format) => {
    const folder = createFolder()
    const name = format === 'ustar' ? `${'d'.repeat(90)}/${'f'.repeat(90)}` : LONG
    await writeFile(join(folder, 'content'), 'x')
    // ustar has room for a long name, in two parts, but not for a long link.
    const script = 'mkdir -p "$(dirname "$1")" && cp content "$1" && ln "$1" hard && tar --format="$2" -cf out.tar $3'
    const order = format === 'ustar' ? `hard ${name}` : `${name} hard`
    execFileSync('sh', ['-c', script, 'sh', name, format, order], { cwd: folder })
    const entries = await entriesOf(await readFile(join(folder, 'out.tar')))
    const [first, second] = order.split(' ')
    expect(entries).toMatchObject([
      { path: first, type: 'file', size: 1 },
      { path: second, type: 'hardlink', linkname: first, size: 0 },
    ])
  })

  it('takes the size of a PAX header over the other, so that no entry hides in a content', async () => {
    const hidden = Buffer.concat([header({ path: 'hidden' }), Buffer.alloc(512)])
    const archive = Buffer.concat([
      paxed('13 size=1024\n', header({ path: 'carrier' })),
      hidden,
      header({ path: 'next' }),
      END,
    ])
    expect((await entriesOf(archive)).map(({ path }) => path)).toEqual(['carrier', 'next'])
  })

  it('names entries it drops, and whiteouts, for what they are', async () => {
    const archive = Buffer.concat([forged(header({ path: 'dev' }), [156, '3']), header({ path: 'x/.wh.y' }), END])
    expect(await entriesOf(archive)).toMatchObject([
      { path: 'dev', type: 'other' },
      { path: 'x/.wh.y', type: 'file' },
    ])
  })

  it.each([
    ['a name that climbs', header({ path: '../a' })],
    ['a name that climbs inside', header({ path: 'a/../../b' })],
    ['a wrong checksum', Buffer.concat([header({}).subarray(0, 511), Buffer.from('x')])],
    ['a negative size', forged(header({}), [124, '-0000000001'])],
    ['a base-256 size', forged(header({}), [124, '\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff'])],
    ['a size beyond the archive', header({ size: 1_000_000 })],
    ['an unknown type', forged(header({}), [156, 'S'])],
    [
      'a folder with a content',
      Buffer.concat([forged(header({ type: 'directory' }), [124, '00000000005']), Buffer.alloc(512)]),
    ],
    ['a NUL in a PAX path', paxed('13 path=a\0b/c\n', header({}))],
    ['a PAX record that is too long', paxed('99 path=a\n', header({}))],
    ['a PAX record of length 0', paxed('0 path=a\n', header({}))],
    ['a PAX size that is none', paxed('11 size=-1\n', header({}))],
    ['a path given twice', paxed('10 path=a\n10 path=b\n', header({}))],
    ['no end', Buffer.alloc(0)],
  ])('refuses %s', async (_, blocks) => {
    const bytes = blocks.length === 0 ? header({}) : Buffer.concat([blocks, END])
    await expect(entriesOf(bytes)).rejects.toMatchObject({ code: 'INVALID_IMAGE' })
  })

  it('refuses an archive cut off anywhere', async () => {
    const archive = Buffer.concat([
      paxed('13 path=a/b/c\n', header({ size: 600 })),
      Buffer.alloc(1024),
      header({ path: 'z', type: folderNode(0).type }),
      END,
    ])
    for (let length = 0; length < archive.length - 1024; length += 256) {
      await expect(entriesOf(archive.subarray(0, length))).rejects.toMatchObject({ code: 'INVALID_IMAGE' })
    }
  })
})
