// What COPY and the other instructions put into an image, as GNU tar reads its layers.
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are variables of a Dockerfile.
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { buildImage } from '../../../images/build.ts'
import {
  build,
  createFolder,
  createStore,
  type Files,
  listLayer,
  pathsOf,
  readFromLayer,
  writeFiles,
} from './_workspace.ts'

describe('an image', () => {
  it('has the config its instructions give', async () => {
    const image = await build([
      'ENV A=1 B="two words"',
      'ENV C=$A D=${B:+x}',
      'ENV E with  blanks',
      'LABEL "a b"=c d=$A',
      'WORKDIR /one',
      'WORKDIR two/$A',
      'USER 7:8',
      'CMD ["first"]',
      'ENTRYPOINT ["/bin/p", "$A"]',
      'CMD ["x"]',
    ])
    expect(image.config).toEqual({
      entrypoint: ['/bin/p', '$A'],
      cmd: ['x'],
      env: { PATH: expect.stringContaining('/usr/bin'), A: '1', B: 'two words', C: '1', D: 'x', E: 'with  blanks' },
      workingDir: '/one/two/1',
      user: '7:8',
      labels: { 'a b': 'c', d: '1' },
    })
  })

  it('gives a variable the value of the lines before', async () => {
    expect((await build(['ENV A=1', 'ENV A=2 B=$A'])).config.env).toMatchObject({ A: '2', B: '1' })
  })

  it('has the same digest whenever and wherever it is built', async () => {
    const files: Files = { 'b/c': 'x', a: 'y', [`${'long/'.repeat(30)}é`]: 'z' }
    // With a mode of its own, since a checkout's depends on the umask.
    const lines = ['COPY --chmod=755 . /app/', 'ENTRYPOINT ["/app/a"]']
    const [first, second] = [await build(lines, files), await build(lines, files)]
    expect(second.digest).toBe(first.digest)
    // By value: a digest that changes with a version of Mayfly would make every image anew.
    expect(first.layers).toEqual(['sha256:c5a1048a20dff3c7038ad12a0d487d5a4d573f5942cc1a32555d00c0dd190e01'])
  })

  it('takes its times from the epoch it is given', async () => {
    const store = createStore()
    const context = writeFiles(createFolder(), { a: 'x', Dockerfile: 'FROM scratch\nCOPY a /a' })
    const image = await buildImage({ context, store, epochSeconds: 86_400 })
    expect(listLayer(store, image.layers[0] as string)).toEqual(['-rw-r--r-- 0/0 1 1970-01-02 00:00:00 a'])
  })

  it('names no layer twice', async () => {
    const image = await build(['COPY a /a', 'COPY b /a', 'COPY a /a'], { a: 'x', b: 'y' })
    expect(image.layers).toHaveLength(2)
  })

  it('tells each step', async () => {
    const context = writeFiles(createFolder(), { Dockerfile: 'FROM scratch\nENV a=b' })
    const told: string[] = []
    await buildImage({ context, store: createStore(), tag: 'told', onProgress: (line) => told.push(line) })
    expect(told).toEqual(['[1/1] ENV a=b', expect.stringMatching(/^told is sha256:/)])
  })

  it('needs a Dockerfile', async () => {
    await expect(buildImage({ context: createFolder(), store: createStore() })).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringContaining('needs a Dockerfile'),
    })
  })
})

describe('COPY', () => {
  const files: Files = {
    'a.txt': 'A',
    'b.txt': 'B',
    'dir/c.txt': 'C',
    'dir/sub/d': { text: 'D', mode: 0o755 },
    'dir/link': { link: '../a.txt' },
  }

  async function layersOf(...lines: string[]): Promise<string[][]> {
    const store = createStore()
    const image = await build(lines, files, store)
    return image.layers.map((layer) => pathsOf(store, layer))
  }

  it.each([
    ['a file to a path', 'COPY a.txt /x/y', ['x/', 'x/y']],
    ['a file into a folder', 'COPY a.txt /x/', ['x/', 'x/a.txt']],
    ['a file under the root', 'COPY a.txt b.txt /', ['a.txt', 'b.txt']],
    ['a file to a relative path', 'COPY a.txt x', ['x']],
    ['what a folder holds', 'COPY dir /x', ['x/', 'x/c.txt', 'x/link -> ../a.txt', 'x/sub/', 'x/sub/d']],
    [
      'a folder beside a file',
      'COPY dir a.txt /x/',
      ['x/', 'x/a.txt', 'x/c.txt', 'x/link -> ../a.txt', 'x/sub/', 'x/sub/d'],
    ],
    ['what a wildcard matches', 'COPY ?.t*t /x/', ['x/', 'x/a.txt', 'x/b.txt']],
    ['what a class matches', 'COPY [^a].txt /x/', ['x/', 'x/b.txt']],
    ['a wildcard in a folder', 'COPY d*/c.txt /x', ['x']],
    ['a file that a link inside the context leads to', 'COPY dir/link /x/', ['x/', 'x/link']],
    ['the JSON form', 'COPY ["a.txt", "/with blank/"]', ['with blank/', 'with blank/a.txt']],
    ['a source from the root of the context', 'COPY /a.txt /x', ['x']],
  ])('puts %s', async (_, line, paths) => {
    expect(await layersOf(line)).toEqual([paths])
  })

  it('goes where WORKDIR is, in a layer of its own', async () => {
    expect(await layersOf('WORKDIR /w', 'COPY a.txt .')).toEqual([['w/'], ['w/', 'w/a.txt']])
  })

  it('follows a link of an earlier layer to a folder of the image, never out of it', async () => {
    const store = createStore()
    const image = await build(
      ['COPY . /', 'COPY a.txt /out/a', 'COPY a.txt /up/b'],
      { 'real/x': '', out: { link: 'real' }, up: { link: '../../..' }, 'a.txt': 'A' },
      store,
    )
    expect(pathsOf(store, image.layers[1] as string)).toEqual(['real/', 'real/a'])
    expect(pathsOf(store, image.layers[2] as string)).toEqual(['b'])
  })

  it('keeps modes but not set-id bits, and makes parents 0755 root', async () => {
    const store = createStore()
    const image = await build(
      ['COPY p /deep/er/p', 'COPY --chmod=0700 p /q'],
      { p: { text: 'x', mode: 0o6751 } },
      store,
    )
    const [first, second] = image.layers.map((layer) => listLayer(store, layer).map((line) => line.slice(0, 14)))
    expect(first).toEqual(['drwxr-xr-x 0/0', 'drwxr-xr-x 0/0', '-rwxr-x--x 0/0'])
    expect(second).toEqual(['-rwx------ 0/0'])
  })

  it('keeps the mode a folder has from an earlier layer', async () => {
    const store = createStore()
    const image = await build(['COPY --chmod=0700 dir /d', 'COPY a.txt /d/'], files, store)
    expect(listLayer(store, image.layers[1] as string)[0]).toMatch(/^drwx------ .* d\/$/)
  })

  it.each([
    ['a path above the context', 'COPY ../outside /x', /leads out of the build context/],
    ['a path that climbs out', 'COPY dir/../../outside /x', /leads out of the build context/],
    ['a wildcard above the context', 'COPY ../* /x/', /leads out of the build context/],
    ['a link that leads out', 'COPY escape /x', /escape is a link that leads out/],
    ['a link to a folder that leads out', 'COPY folder/passwd /x', /leads out/],
    ['a wildcard through a link that leads out', 'COPY folder/pass* /x/', /leads out/],
    ['a file that is not there', 'COPY missing /x', /there is no such file/],
    ['a wildcard without a match', 'COPY *.zip /x/', /matches nothing/],
    ['several sources to a file', 'COPY a b /x', /several sources need a destination that is a folder: \/x\//],
    ['a wildcard with several matches to a file', 'COPY ? /x', /several sources/],
    ['a name that means a deletion', 'COPY a /.wh.b', /deletion/],
    ['a pattern that is none', 'COPY [b-a] /x', /no valid pattern/],
    ['a file where a folder would be needed', 'COPY a a/b', /cannot be made: \/a is no folder/],
  ])('refuses %s', async (_, line, message) => {
    const hostile: Files = { a: 'x', b: 'y', escape: { link: '/etc/passwd' }, folder: { link: '/etc' } }
    await expect(build(['COPY a /a', line], hostile)).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringMatching(message),
    })
  })

  it('keeps a link inside a copied folder as it is, and reads nothing through it', async () => {
    const store = createStore()
    const image = await build(['COPY d /d'], { 'd/out': { link: '/etc/passwd' } }, store)
    expect(pathsOf(store, image.layers[0] as string)).toEqual(['d/', 'd/out -> /etc/passwd'])
  })

  it('refuses what is neither file, folder nor link', async () => {
    const context = writeFiles(createFolder(), { Dockerfile: 'FROM scratch\nCOPY . /' })
    execFileSync('mkfifo', [join(context, 'pipe')])
    await expect(buildImage({ context, store: createStore() })).rejects.toThrow(/pipe is a device, a socket or a pipe/)
  })

  it('copies empty folders and large files whole', async () => {
    const store = createStore()
    const context = writeFiles(createFolder(), {
      Dockerfile: 'FROM scratch\nCOPY data /data',
      'data/big': Buffer.alloc(3_000_001, 'x'),
    })
    mkdirSync(join(context, 'data/empty'))
    const image = await buildImage({ context, store })
    expect(pathsOf(store, image.layers[0] as string)).toEqual(['data/', 'data/big', 'data/empty/'])
    expect(readFromLayer(store, image.layers[0] as string, 'data/big')).toHaveLength(3_000_001)
  })
})

describe('.dockerignore', () => {
  async function copied(rules: string, files: Files): Promise<string[]> {
    const store = createStore()
    const image = await build(['COPY . /'], { ...files, '.dockerignore': rules }, store)
    return pathsOf(store, image.layers[0] as string).filter((path) => !['.dockerignore', 'Dockerfile'].includes(path))
  }
  const files: Files = { 'a.log': '', 'b.txt': '', 'n/a.log': '', 'n/m/b.txt': '', 'n/m/keep.log': '' }

  it.each([
    ['*.log', ['b.txt', 'n/', 'n/a.log', 'n/m/', 'n/m/b.txt', 'n/m/keep.log']],
    ['**/*.log', ['b.txt', 'n/', 'n/m/', 'n/m/b.txt']],
    ['# all of\n/n/\n', ['a.log', 'b.txt']],
    ['n\n!n/m/keep.log', ['a.log', 'b.txt', 'n/', 'n/m/', 'n/m/keep.log']],
    ['*\n!b.*', ['b.txt']],
    ['n/m/?.txt', ['a.log', 'b.txt', 'n/', 'n/a.log', 'n/m/', 'n/m/keep.log']],
  ])('%j leaves %j', async (rules, expected) => {
    expect(await copied(rules, files)).toEqual(expected)
  })

  it('makes a source that it excludes an error that says so', async () => {
    await expect(build(['COPY secret /x'], { secret: 's', '.dockerignore': 'secret' })).rejects.toThrow(
      /\.dockerignore excludes secret/,
    )
  })

  it('cannot be got round by a link to what it excludes', async () => {
    const files: Files = { secret: 's', alias: { link: 'secret' }, '.dockerignore': 'secret' }
    await expect(build(['COPY alias /x'], files)).rejects.toThrow(/\.dockerignore excludes alias/)
  })
})
