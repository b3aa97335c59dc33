// What a script's first line asks for, as the kernel reads it (fs/binfmt_script.c) and, for `env`, as env(1) does.

/** The kernel looks at so many bytes of a file and no further (BINPRM_BUF_SIZE). */
export const SHEBANG_BYTES = 256

export interface Shebang {
  readonly interpreter: string
  /** Of `#!/usr/bin/env python3` and its like: the program that env looks for on PATH. */
  readonly program?: string
}

/** Undefined when the file is no script; a text when it is one whose first line cannot work. */
export function parseShebang(start: Buffer): Shebang | string | undefined {
  if (start.toString('latin1', 0, 2) !== '#!') return undefined
  const text = start.toString('utf8', 2, SHEBANG_BYTES)
  const newline = text.indexOf('\n')
  const line = (newline < 0 ? text : text.slice(0, newline)).trim()
  if (newline >= 0 && text[newline - 1] === '\r')
    return 'its #! line ends in CR LF; the interpreter is sought with the CR'
  const [interpreter = '', ...words] = line.split(/[ \t]+/)
  if (interpreter === '') return 'its #! line names no interpreter'
  if (!interpreter.startsWith('/')) return `its interpreter ${JSON.stringify(interpreter)} is no absolute path`
  const isCut = newline < 0 && start.length >= SHEBANG_BYTES && words.length === 0
  if (isCut) return `its #! line is longer than the kernel's ${SHEBANG_BYTES} bytes`
  const program = interpreter.endsWith('/env') ? programOf(words) : undefined
  return { interpreter, ...(program !== undefined && { program }) }
}

/** The first word that is neither an option of env nor an assignment. */
function programOf(words: readonly string[]): string | undefined {
  return words
    .map((word) => word.replace(/^-S/, ''))
    .find((word) => word !== '' && !word.startsWith('-') && !word.includes('='))
}
