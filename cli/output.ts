// How the command line shows things: a table for people, JSON with --json, progress only where somebody watches.
import { styleText } from 'node:util'

export type Cell = string | number | undefined

export interface Output {
  readonly isJson: boolean
  /** The answer: `value` as JSON, or `text` for people. */
  show(value: unknown, text: () => string): void
  /** Bytes as they are. */
  write(bytes: Uint8Array): Promise<void>
  /** Something to know that is no part of the answer. */
  note(line: string): void
  /** What is being done right now; each line replaces the last. */
  progress(line: string): void
}

export function createOutput(isJson: boolean): Output {
  const { stdout, stderr } = process
  const watches = stderr.isTTY && !isJson
  let hasProgress = false
  const clear = () => {
    if (hasProgress) stderr.write('\r\x1b[K')
    hasProgress = false
  }
  return {
    isJson,
    show(value, text) {
      clear()
      stdout.write(isJson ? `${JSON.stringify(value, null, 2)}\n` : text())
    },
    write(bytes) {
      clear()
      return new Promise((resolve, reject) => stdout.write(bytes, (error) => (error ? reject(error) : resolve())))
    },
    note(line) {
      clear()
      stderr.write(`${printable(line)}\n`)
    },
    progress(line) {
      if (!watches) return
      clear()
      stderr.write(printable(line).slice(0, Math.max(20, stderr.columns - 1)))
      hasProgress = true
    },
  }
}

export function table(headings: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const cells = rows.map((row) => row.map((cell) => printable(String(cell ?? ''))))
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...cells.map((row) => row[column]?.length ?? 0)),
  )
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd()
  return [style('bold', line(headings)), ...cells.map(line)].map((text) => `${text}\n`).join('')
}

export function style(format: Parameters<typeof styleText>[0], text: string): string {
  return styleText(format, text, { stream: process.stdout })
}

/** Text of others must not move the cursor or ring the bell. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, '\u{fffd}')
}
