// How an entry of a layer's tar is written and read: POSIX ustar, with a PAX header where ustar has no room. Written
// by hand because a layer's digest is made of these very bytes: a library that changed its padding would rename every
// image. The reader is strict, because a layer may come from anyone: where two readers could differ, it refuses.
import type { FileHandle } from 'node:fs/promises'
import { PlatformError } from '../contract/errors.ts'

export const BLOCK = 512
const NAME_BYTES_MAX = 100
/** Eleven octal digits. */
const NUMBER_MAX = 8 ** 11 - 1
/** A PAX header or a GNU long name holds paths; the kernel's PATH_MAX is 4096. */
const EXTENSION_BYTES_MAX = 64 * 1024
const ENTRIES_MAX = 1_000_000

const TYPE_FLAGS = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const
const TYPES: Readonly<Record<string, TarEntry['type']>> = {
  '0': 'file',
  '\0': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'other',
  '4': 'other',
  '5': 'directory',
  '6': 'other',
  '7': 'file',
}

interface TarHeader {
  /** Without a leading slash; a directory's without a trailing one. */
  readonly path: string
  readonly type: keyof typeof TYPE_FLAGS
  readonly mode: number
  readonly size: number
  readonly linkname: string
  readonly mtimeSeconds: number
}

export interface TarEntry {
  readonly path: string
  /** `other` is a device or a fifo, which unpacking drops. */
  readonly type: keyof typeof TYPE_FLAGS | 'other'
  readonly mode: number
  readonly size: number
  readonly linkname: string
  /** Where the content begins in the archive. */
  readonly offset: number
}

export function encodeHeader(header: TarHeader): Buffer {
  const path = header.type === 'directory' ? `${header.path}/` : header.path
  const records: [key: string, value: string][] = []
  if (!fitsUstar(path)) records.push(['path', path])
  if (!fitsUstar(header.linkname)) records.push(['linkpath', header.linkname])
  if (header.size > NUMBER_MAX) records.push(['size', String(header.size)])
  const block = encodeBlock({ ...header, path }, TYPE_FLAGS[header.type])
  if (records.length === 0) return block
  const pax = Buffer.from(records.map(([key, value]) => paxRecord(key, value)).join(''))
  const paxHeader = { path: 'PaxHeaders.0/entry', mode: 0o644, size: pax.length, linkname: '', mtimeSeconds: 0 }
  return Buffer.concat([encodeBlock(paxHeader, 'x'), pax, Buffer.alloc(paddingAfter(pax.length)), block])
}

/** Zeros that fill the last block of a content of `size` bytes. */
export function paddingAfter(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK
}

/** Reads the headers only: contents are skipped by position. Whiteouts are entries like others here. */
export async function* readTar(file: FileHandle, archiveBytes: number): AsyncGenerator<TarEntry> {
  let position = 0
  let extension: Map<string, string> = new Map()
  for (let count = 0; position + BLOCK <= archiveBytes; count++) {
    if (count > ENTRIES_MAX) throw invalid(`it has more than ${ENTRIES_MAX} entries`)
    const block = await readExactly(file, position, BLOCK)
    position += BLOCK
    if (block.every((byte) => byte === 0)) return
    refuseWrongChecksum(block)
    const flag = String.fromCharCode(block[156] as number)
    const isExtension = flag === 'x' || flag === 'L' || flag === 'K'
    const size = sizeOf(block, isExtension ? undefined : extension.get('size'))
    if (position + size > archiveBytes) throw invalid('it is cut off in the middle of an entry')
    if (isExtension) {
      await readExtension(file, { flag, position, size }, extension)
    } else if (flag !== 'g') {
      yield toEntry(block, flag, { size, offset: position, extension })
      extension = new Map()
    }
    position += size + paddingAfter(size)
  }
  throw invalid('it has no end marker')
}

/** Several may precede one entry, but a key given twice would be read differently by different readers. */
async function readExtension(
  file: FileHandle,
  { flag, position, size }: { flag: string; position: number; size: number },
  extension: Map<string, string>,
): Promise<void> {
  if (size > EXTENSION_BYTES_MAX) throw invalid('an extended header is too large')
  const content = await readExactly(file, position, size)
  for (const [key, value] of flag === 'x' ? parsePax(content) : [gnuRecord(flag as 'L' | 'K', content)]) {
    if (extension.has(key)) throw invalid(`an entry gives its ${key} twice`)
    extension.set(key, value)
  }
}

function fitsUstar(text: string): boolean {
  return Buffer.byteLength(text) <= NAME_BYTES_MAX && /^[\x20-\x7e]*$/.test(text)
}

/** `length key=value\n`, where length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`)
  let length = rest + String(rest).length
  if (String(length).length > String(rest).length) length = rest + String(length).length
  return `${length} ${key}=${value}\n`
}

function encodeBlock(header: Omit<TarHeader, 'type'>, flag: string): Buffer {
  const block = Buffer.alloc(BLOCK)
  block.write(header.path, 0, NAME_BYTES_MAX, 'utf8')
  block.write(octal(header.mode, 7), 100)
  block.write(octal(0, 7), 108)
  block.write(octal(0, 7), 116)
  block.write(octal(header.size > NUMBER_MAX ? 0 : header.size, 11), 124)
  block.write(octal(header.mtimeSeconds, 11), 136)
  block.write(flag, 156)
  block.write(header.linkname, 157, NAME_BYTES_MAX, 'utf8')
  block.write('ustar\x0000', 257)
  block.write(octal(0, 7), 329)
  block.write(octal(0, 7), 337)
  block.write(`${octal(checksumOf(block), 6)}\0 `, 148)
  return block
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, '0')
}

/** The sum of all bytes, the checksum's own field counted as spaces. */
function checksumOf(block: Buffer): number {
  const SPACE = 0x20
  return block.reduce((sum, byte, at) => sum + (at >= 148 && at < 156 ? SPACE : byte), 0)
}

function refuseWrongChecksum(block: Buffer): void {
  if (parseOctal(block, 148, 8) !== checksumOf(block)) throw invalid('a header is damaged')
}

/** PAX wins over the header: a reader that believed the other would see different entries (CVE-2025-62518). */
function sizeOf(block: Buffer, pax: string | undefined): number {
  if (pax === undefined) return parseOctal(block, 124, 12)
  if (!/^\d{1,15}$/.test(pax)) throw invalid('an entry has no valid size')
  return Number(pax)
}

function toEntry(
  block: Buffer,
  flag: string,
  found: { size: number; offset: number; extension: ReadonlyMap<string, string> },
): TarEntry {
  const type = TYPES[flag]
  if (!type) throw invalid(`an entry has the unknown type ${JSON.stringify(flag)}`)
  if (type !== 'file' && found.size !== 0) throw invalid('an entry that is no file has a content')
  const isUstar = block.toString('latin1', 257, 263) === 'ustar\0'
  const prefix = isUstar ? text(block, 345, 155) : ''
  const name = found.extension.get('path') ?? (prefix ? `${prefix}/` : '') + text(block, 0, NAME_BYTES_MAX)
  return {
    path: normalPath(name),
    type,
    mode: parseOctal(block, 100, 8) & 0o7777,
    size: found.size,
    linkname: found.extension.get('linkpath') ?? text(block, 157, NAME_BYTES_MAX),
    offset: found.offset,
  }
}

function parsePax(content: Buffer): [key: string, value: string][] {
  const records: [string, string][] = []
  for (let at = 0; at < content.length; ) {
    const space = content.indexOf(0x20, at)
    const digits = content.toString('latin1', at, space)
    const end = at + Number(digits)
    if (space < 0 || !/^\d{1,6}$/.test(digits) || end > content.length || end <= space || content[end - 1] !== 0x0a) {
      throw invalid('a PAX header is malformed')
    }
    const record = content.toString('utf8', space + 1, end - 1)
    const equals = record.indexOf('=')
    if (equals < 1 || record.includes('\0')) throw invalid('a PAX header is malformed')
    records.push([record.slice(0, equals), record.slice(equals + 1)])
    at = end
  }
  return records
}

function gnuRecord(flag: 'L' | 'K', content: Buffer): [key: string, value: string] {
  return [flag === 'L' ? 'path' : 'linkpath', text(content, 0, content.length)]
}

function parseOctal(block: Buffer, at: number, length: number): number {
  const digits = block
    .toString('latin1', at, at + length)
    .replace(/[\0 ]+$/, '')
    .trimStart()
  // Base-256 numbers (first bit set) are GNU's for what octal cannot hold; PAX is what writers of layers use.
  if (!/^[0-7]*$/.test(digits)) throw invalid('a header holds no valid number')
  return Number.parseInt(digits || '0', 8)
}

function text(block: Buffer, at: number, length: number): string {
  const end = block.indexOf(0, at)
  return block.toString('utf8', at, end < 0 || end > at + length ? at + length : end)
}

function normalPath(name: string): string {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) throw invalid(`an entry is named ${JSON.stringify(name.slice(0, 200))}`)
  return parts.join('/')
}

async function readExactly(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, position + filled)
    if (bytesRead === 0) throw invalid('it is cut off')
    filled += bytesRead
  }
  return buffer
}

function invalid(problem: string): PlatformError {
  return new PlatformError('INVALID_IMAGE', `the tar of a layer is not valid: ${problem}`)
}
