// Compiles the guest program of the suite. Static, so that it runs in an image with nothing else.
import { execFileSync } from 'node:child_process'
import path from 'node:path'

const SOURCE = path.join(import.meta.dirname, '../guests/limits.c')

export function compileGuest(target: string): void {
  execFileSync('gcc', ['-static', '-O2', '-o', target, SOURCE])
}
