// ELF files made by bytes: as small as a loader would still look at.

const INTERPRETER = 3
const HEADER_BYTES = 64
const PROGRAM_HEADER_BYTES = 56

/** A header for a machine; with an interpreter, one program header that names it. */
export function makeElf(options: { machine?: number; bits?: 32 | 64; interpreter?: string } = {}): Buffer {
  const { machine = process.arch === 'arm64' ? 183 : 62, bits = 64, interpreter } = options
  const header = Buffer.alloc(HEADER_BYTES)
  header.write('\x7fELF', 'latin1')
  header.set([bits === 64 ? 2 : 1, 1, 1], 4)
  header.writeUInt16LE(2, 16)
  header.writeUInt16LE(machine, 18)
  if (interpreter === undefined) return header
  header.writeBigUInt64LE(BigInt(HEADER_BYTES), 32)
  header.writeUInt16LE(PROGRAM_HEADER_BYTES, 54)
  header.writeUInt16LE(1, 56)
  const program = Buffer.alloc(PROGRAM_HEADER_BYTES)
  const path = Buffer.from(`${interpreter}\0`)
  program.writeUInt32LE(INTERPRETER, 0)
  program.writeBigUInt64LE(BigInt(HEADER_BYTES + PROGRAM_HEADER_BYTES), 8)
  program.writeBigUInt64LE(BigInt(path.length), 32)
  return Buffer.concat([header, program, path])
}
