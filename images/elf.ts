// What an ELF file asks of the machine and of its loader: architecture, interpreter, libraries and where to look for
// them (gABI; ld.so(8)). It is parsed, never run: `ld.so --list` would run the file's own interpreter.
import { PlatformError } from '../contract/errors.ts'

/** Reads up to `length` bytes at `offset`; fewer at the end of the file. */
export type ReadAt = (offset: number, length: number) => Promise<Buffer>

export interface Elf {
  /** Why this machine cannot run it, for a person to read; undefined when it can. The rest is empty then. */
  readonly foreign?: string
  readonly interpreter?: string
  readonly needed: readonly string[]
  /** Colon-separated lists as written, `$ORIGIN` and all. */
  readonly rpath?: string
  readonly runpath?: string
}

const MACHINES: Readonly<Record<number, string>> = {
  3: 'x86 (32-bit)',
  40: 'ARM (32-bit)',
  62: 'x86-64',
  183: 'AArch64',
  243: 'RISC-V',
  21: 'PowerPC 64',
  22: 'S/390',
}
const HOST_MACHINE = process.arch === 'arm64' ? 183 : 62
const HEADER_BYTES = 64
const PROGRAM_HEADER_BYTES = 56
/** Real files have a dozen; a bound keeps a hostile one from being read for ever. */
const PROGRAM_HEADERS_MAX = 256
const PATH_BYTES_MAX = 4096
const DYNAMIC_BYTES_MAX = 1024 * 1024
const STRINGS_BYTES_MAX = 16 * 1024 * 1024

const SEGMENT = { load: 1, dynamic: 2, interpreter: 3 } as const
const DYNAMIC = { end: 0, needed: 1, stringTable: 5, stringBytes: 10, rpath: 15, runpath: 29 } as const

interface Segment {
  readonly type: number
  readonly offset: number
  readonly address: number
  readonly fileBytes: number
}

/** Undefined when it is no ELF file; INVALID_IMAGE when it is a damaged one. `name` is for the error. */
export async function readElf(read: ReadAt, name: string): Promise<Elf | undefined> {
  const header = await read(0, HEADER_BYTES)
  if (header.toString('latin1', 0, 4) !== '\x7fELF') return undefined
  const foreign = foreignOf(header)
  if (foreign !== undefined) return { foreign, needed: [] }
  if (header.length < HEADER_BYTES) throw damaged(name)
  const segments = await readSegments(read, header, name)
  const interpreter = segments.find((segment) => segment.type === SEGMENT.interpreter)
  const dynamic = segments.find((segment) => segment.type === SEGMENT.dynamic)
  return {
    ...(interpreter && { interpreter: await readInterpreter(read, interpreter, name) }),
    ...(dynamic ? await readDynamic(read, { dynamic, segments }, name) : { needed: [] }),
  }
}

function foreignOf(header: Buffer): string | undefined {
  if (header.length < 20) return 'nothing: it is cut off'
  const [is64, isLittle] = [header[4] === 2, header[5] === 1]
  const machine = isLittle ? header.readUInt16LE(18) : header.readUInt16BE(18)
  if (is64 && isLittle && machine === HOST_MACHINE) return undefined
  const bits = is64 || MACHINES[machine]?.includes('bit') ? '' : ' (32-bit)'
  return (MACHINES[machine] ?? `machine ${machine}`) + bits + (isLittle ? '' : ', big-endian')
}

async function readSegments(read: ReadAt, header: Buffer, name: string): Promise<Segment[]> {
  const [offset, entryBytes, count] = [integer(header, 32, name), header.readUInt16LE(54), header.readUInt16LE(56)]
  if (count === 0) return []
  if (entryBytes !== PROGRAM_HEADER_BYTES || count > PROGRAM_HEADERS_MAX) throw damaged(name)
  const table = await readWhole(read, { offset, length: count * entryBytes }, name)
  return Array.from({ length: count }, (_, index) => {
    const at = index * entryBytes
    return {
      type: table.readUInt32LE(at),
      offset: integer(table, at + 8, name),
      address: integer(table, at + 16, name),
      fileBytes: integer(table, at + 32, name),
    }
  })
}

async function readInterpreter(read: ReadAt, segment: Segment, name: string): Promise<string> {
  if (segment.fileBytes > PATH_BYTES_MAX) throw damaged(name)
  return stringAt(await readWhole(read, { offset: segment.offset, length: segment.fileBytes }, name), 0, name)
}

async function readDynamic(
  read: ReadAt,
  { dynamic, segments }: { dynamic: Segment; segments: readonly Segment[] },
  name: string,
): Promise<Elf> {
  if (dynamic.fileBytes > DYNAMIC_BYTES_MAX) throw damaged(name)
  const table = await readWhole(read, { offset: dynamic.offset, length: dynamic.fileBytes }, name)
  const entries: [tag: number, value: number][] = []
  for (let at = 0; at + 16 <= table.length; at += 16) {
    const tag = Number(table.readBigInt64LE(at))
    if (tag === DYNAMIC.end) break
    // Only entries that are used need a value that JavaScript's numbers hold.
    if (Object.values<number>(DYNAMIC).includes(tag)) entries.push([tag, integer(table, at + 8, name)])
  }
  const dynamicValue = (tag: number) => entries.find(([other]) => other === tag)?.[1]
  const address = dynamicValue(DYNAMIC.stringTable)
  const length = dynamicValue(DYNAMIC.stringBytes) ?? 0
  if (address === undefined || length > STRINGS_BYTES_MAX) throw damaged(name)
  const strings = await readWhole(read, { offset: fileOffset(address, segments, name), length }, name)
  const [rpath, runpath] = [dynamicValue(DYNAMIC.rpath), dynamicValue(DYNAMIC.runpath)]
  return {
    needed: entries.filter(([tag]) => tag === DYNAMIC.needed).map(([, at]) => stringAt(strings, at, name)),
    ...(rpath !== undefined && { rpath: stringAt(strings, rpath, name) }),
    ...(runpath !== undefined && { runpath: stringAt(strings, runpath, name) }),
  }
}

/** The dynamic section speaks of addresses; the loadable segments say where in the file those lie. */
function fileOffset(address: number, segments: readonly Segment[], name: string): number {
  for (const { type, offset, address: start, fileBytes } of segments) {
    if (type === SEGMENT.load && address >= start && address < start + fileBytes) return address - start + offset
  }
  throw damaged(name)
}

function stringAt(table: Buffer, at: number, name: string): string {
  const end = table.indexOf(0, at)
  if (at >= table.length || end < 0) throw damaged(name)
  return table.toString('utf8', at, end)
}

function integer(buffer: Buffer, at: number, name: string): number {
  const value = Number(buffer.readBigUInt64LE(at))
  if (!Number.isSafeInteger(value)) throw damaged(name)
  return value
}

async function readWhole(read: ReadAt, range: { offset: number; length: number }, name: string): Promise<Buffer> {
  const bytes = await read(range.offset, range.length)
  if (bytes.length !== range.length) throw damaged(name)
  return bytes
}

function damaged(name: string): PlatformError {
  return new PlatformError('INVALID_IMAGE', `${name} is a damaged ELF file`)
}
