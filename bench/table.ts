// Tables and paragraphs on a terminal: aligned, and folded where a line would be longer than people's windows are wide.
import { styleText } from 'node:util'

const WIDTH_MIN = 120
const WIDTH_MAX = 160
/** Where nobody says how wide it is. */
const WIDTH_OF_FILE = 140
const GAP = '  '
/** Words narrower than that are no longer read. */
const COLUMN_MIN = 12

export interface Column {
  readonly heading: string
  /** A number: to the right, and never folded. */
  readonly isNumber?: boolean
}

type Style = Parameters<typeof styleText>[0]

export function renderTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = widthsOf(columns, rows)
  const render = (cells: readonly string[]): string[] => {
    const folded = cells.map((cell, index) => fold(cell, widths[index] ?? 0))
    const height = Math.max(...folded.map(({ length }) => length))
    return Array.from({ length: height }, (_, level) =>
      folded
        .map((lines, index) => {
          const text = lines[level] ?? ''
          const width = widths[index] ?? 0
          return columns[index]?.isNumber ? text.padStart(width) : text.padEnd(width)
        })
        .join(GAP)
        .trimEnd(),
    )
  }
  const heading = render(columns.map((column) => column.heading)).map((text) => styled('underline', text))
  return [...heading, ...rows.flatMap(render)].map(line).join('')
}

/** What follows the first line begins where the text of the first does. */
export function renderParagraph(text: string, mark = ''): string {
  const [first = '', ...rest] = fold(text, widthOfTerminal() - mark.length)
  return [`${mark}${first}`, ...rest.map((one) => `${' '.repeat(mark.length)}${one}`)].map(line).join('')
}

export function styled(format: Style, text: string): string {
  return styleText(format, text, { stream: process.stdout })
}

export function line(text: string): string {
  return `${text}\n`
}

/** The widest column of words gives way first. */
function widthsOf(columns: readonly Column[], rows: readonly (readonly string[])[]): number[] {
  const widths = columns.map(({ heading }, index) =>
    Math.max(heading.length, ...rows.map((cells) => cells[index]?.length ?? 0)),
  )
  const limit = widthOfTerminal() - GAP.length * (columns.length - 1)
  const excess = () => widths.reduce((sum, width) => sum + width, 0) - limit
  while (excess() > 0) {
    const words = columns.flatMap(({ isNumber }, index) => (isNumber ? [] : index))
    const widest = words.toSorted((a, b) => (widths[b] ?? 0) - (widths[a] ?? 0))[0]
    if (widest === undefined || (widths[widest] ?? 0) <= COLUMN_MIN) break
    widths[widest] = (widths[widest] ?? 0) - 1
  }
  return widths
}

function fold(text: string, width: number): string[] {
  const lines: string[] = []
  let current = ''
  for (const word of text.split(' ')) {
    if (current !== '' && current.length + 1 + word.length > width) {
      lines.push(current)
      current = word
    } else current = current === '' ? word : `${current} ${word}`
  }
  return [...lines, current]
}

function widthOfTerminal(): number {
  return Math.min(WIDTH_MAX, Math.max(WIDTH_MIN, process.stdout.columns ?? WIDTH_OF_FILE))
}
