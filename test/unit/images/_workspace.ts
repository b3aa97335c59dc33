// A folder of its own for a test of images, with the few things every one of them needs.
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'
import { buildImage } from '../../../images/build.ts'
import { openStore, type Store } from '../../../images/store.ts'

/** A file's content, `{ link }`, or `{ text, mode }`. */
type Content = string | Uint8Array | { link: string } | { text: string; mode: number }
export type Files = Readonly<Record<string, Content>>

/** For a whole suite, which removes it itself. */
export function createKeptFolder(): string {
  return mkdtempSync(join(tmpdir(), 'mayfly images '))
}

export function createFolder(): string {
  const folder = createKeptFolder()
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export function writeFiles(folder: string, files: Files): string {
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name)
    mkdirSync(dirname(path), { recursive: true })
    if (typeof content === 'string' || content instanceof Uint8Array) writeFileSync(path, content)
    else if ('link' in content) symlinkSync(content.link, path)
    else {
      writeFileSync(path, content.text)
      chmodSync(path, content.mode)
    }
  }
  return folder
}

export function createStore(): Store {
  return openStore(join(createFolder(), 'home'))
}

/** Builds an image of a Dockerfile's lines after FROM scratch. */
export async function build(lines: readonly string[], files: Files = {}, store: Store = createStore()) {
  const context = writeFiles(createFolder(), { ...files, Dockerfile: ['FROM scratch', ...lines].join('\n') })
  return await buildImage({ context, store })
}

/** What GNU tar, a reader that is not ours, finds in a layer: `type+mode owner size path [-> target]`. */
export function listLayer(store: Store, digest: string): string[] {
  const options = ['--list', '--verbose', '--numeric-owner', '--quoting-style=literal', '--full-time', '--utc']
  const text = execFileSync('tar', [...options, '--file', store.blobPath(digest)], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C.UTF-8' },
  })
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.replace(/ +/g, ' '))
}

/** Paths of a layer, without the rest. */
export function pathsOf(store: Store, digest: string): string[] {
  return listLayer(store, digest).map((line) => line.replace(/^(\S+ ){5}/, ''))
}

export function readFromLayer(store: Store, digest: string, path: string): string {
  return execFileSync('tar', ['--extract', '--to-stdout', '--file', store.blobPath(digest), path], {
    encoding: 'utf8',
    maxBuffer: 16 * 1024 * 1024,
  })
}
