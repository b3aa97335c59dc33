// Takes the kernel proper out of a bzImage: QEMU starts an uncompressed vmlinux directly, where unpacking itself would
// cost the guest seconds under emulation.
import { spawnSync } from 'node:child_process'
import zlib from 'node:zlib'

const LZ4_LEGACY = 0x184c2102
const SECTOR = 512

/** Offsets are those of Documentation/arch/x86/boot.rst, "The real-mode kernel header". */
export function extractVmlinux(bzImage: Buffer): Buffer {
  if (bzImage.toString('latin1', 0x202, 0x206) !== 'HdrS') throw new Error('This is no bzImage.')
  const setupSectors = bzImage.readUInt8(0x1f1) || 4
  const start = (setupSectors + 1) * SECTOR + bzImage.readUInt32LE(0x248)
  const payload = bzImage.subarray(start, start + bzImage.readUInt32LE(0x24c))
  // The build appends the uncompressed size to the payload.
  const size = payload.readUInt32LE(payload.length - 4)
  const vmlinux = decompress(payload.subarray(0, payload.length - 4), size)
  if (vmlinux.length !== size || vmlinux.readUInt32BE(0) !== 0x7f454c46)
    throw new Error('The unpacked kernel is no ELF file.')
  return vmlinux
}

function decompress(payload: Buffer, size: number): Buffer {
  const magic = payload.toString('hex', 0, 4)
  if (payload.readUInt32LE(0) === LZ4_LEGACY) return decompressLz4(payload, size)
  if (magic === '28b52ffd') return zlib.zstdDecompressSync(payload)
  if (magic.startsWith('1f8b')) return zlib.gunzipSync(payload)
  if (magic === 'fd377a58') return spawnSync('xz', ['-dc'], { input: payload, maxBuffer: size + SECTOR }).stdout
  throw new Error(`The kernel is compressed in a way this script does not know (${magic}).`)
}

/** The legacy frame: blocks of 8 MiB, each behind its compressed length. */
function decompressLz4(payload: Buffer, size: number): Buffer {
  const output = Buffer.alloc(size)
  let written = 0
  for (let at = 4; at < payload.length; ) {
    const length = payload.readUInt32LE(at)
    written = decompressLz4Block(payload.subarray(at + 4, at + 4 + length), output, written)
    at += 4 + length
  }
  return output.subarray(0, written)
}

/** Sequences of literals, then a match to copy from what is already written; the last has literals only. */
function decompressLz4Block(block: Buffer, output: Buffer, written: number): number {
  let at = 0
  const extend = (nibble: number) => {
    if (nibble < 15) return nibble
    let length = nibble
    for (let byte = 255; byte === 255; length += byte) byte = block[at++] ?? 0
    return length
  }
  while (at < block.length) {
    const token = block[at++] ?? 0
    const literals = extend(token >> 4)
    block.copy(output, written, at, at + literals)
    at += literals
    written += literals
    if (at >= block.length) break
    const distance = block.readUInt16LE(at)
    at += 2
    const match = extend(token & 15) + 4
    // Byte by byte: a match may overlap what it produces.
    for (const end = written + match; written < end; written++) output[written] = output[written - distance] ?? 0
  }
  return written
}
