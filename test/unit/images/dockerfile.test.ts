// How a Dockerfile is read, and what is said by line where it cannot be.
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: they are variables of a Dockerfile.
import { describe, expect, it } from 'vitest'
import { parseDockerfile } from '../../../images/dockerfile.ts'
import { expand, splitWords } from '../../../images/words.ts'
import { build } from './_workspace.ts'

const parse = (...lines: string[]) =>
  parseDockerfile(lines.join('\n')).map(({ line, keyword, rest }) => ({ line, keyword, rest }))

describe('a Dockerfile', () => {
  it('is read by logical lines, with comments and empty lines inside a continuation dropped', () => {
    expect(parse('# a comment', 'FROM scratch', 'ENV a=1 \\', '  # inner', '', '  b=2', 'cmd ["x"]')).toEqual([
      { line: 3, keyword: 'ENV', rest: 'a=1   b=2' },
      { line: 7, keyword: 'CMD', rest: '["x"]' },
    ])
  })

  it('is read with CR LF and a byte order mark', () => {
    expect(parseDockerfile('\uFEFFFROM scratch\r\nWORKDIR /a\\\r\nb\r\n')[0]?.rest).toBe('/ab')
  })

  it('continues lines with the character its escape directive names', () => {
    expect(parse('# escape=`', 'FROM scratch', 'ENV a=C:\\ `', 'b=2')[0]?.rest).toBe('a=C:\\ b=2')
  })

  it('takes a directive only before anything else', () => {
    expect(parse('FROM scratch', '# escape=`', 'ENV a=1 \\', 'b=2')).toHaveLength(1)
  })

  it('does not continue after an escaped escape character', () => {
    expect(parse('FROM scratch', 'ENV a=1\\\\', 'CMD ["x"]')).toHaveLength(2)
  })

  it.each([
    ['nothing', [], /line 1: .*FROM scratch/],
    ['no FROM', ['ENV a=1'], /line 1: the first instruction is FROM scratch/],
    ['an ARG before FROM', ['ARG a=1', 'FROM scratch'], /line 1/],
    ['another base', ['FROM debian:12'], /line 1: FROM debian:12 is not supported.*image pack/],
    ['a platform', ['FROM --platform=linux/arm64 scratch'], /line 1: FROM --platform/],
    ['a second stage', ['FROM scratch AS a', 'FROM scratch'], /line 2: a second stage/],
    ['RUN', ['FROM scratch', '', 'RUN make'], /line 3: RUN is not supported: .*COPY the result/],
    ['ADD', ['FROM scratch', 'ADD a /b'], /line 2: ADD is not supported: use COPY/],
    ['a word that is none', ['FROM scratch', 'COPPY a /b'], /line 2: "COPPY" is no instruction/],
    ['a foreign syntax', ['# syntax=example.org/other', 'FROM scratch'], /line 1: the syntax/],
    ['a wrong escape', ['# escape=x', 'FROM scratch'], /line 1: the escape/],
    ['no argument', ['FROM scratch', 'WORKDIR'], /line 2: WORKDIR needs an argument/],
    ['a heredoc', ['FROM scratch', 'COPY <<EOF /a', 'x', 'EOF'], /line 2: a heredoc/],
    ['an open quote', ['FROM scratch', 'COPY "a /b'], /line 2: COPY: the quote " is never closed/],
  ])('is refused by line for %s', (_, lines, message) => {
    expect(() => parse(...lines)).toThrowError(
      expect.objectContaining({ code: 'INVALID_IMAGE', message: expect.stringMatching(message) }),
    )
  })

  it.each([
    ['the shell form', ['CMD run me'], /line 2: CMD: only the exec form.*\/bin\/sh/],
    ['single-quoted JSON', ["ENTRYPOINT ['/a']"], /only the exec form/],
    ['JSON with a number', ['CMD ["a", 1]'], /only the exec form/],
    ['a user by name', ['USER nobody'], /USER: "nobody" is a name/],
    ['a user out of range', ['USER 4294967295'], /at most 2147483647/],
    ['COPY from a stage', ['COPY --from=build /a /b'], /COPY: --from is not supported/],
    ['COPY with an owner', ['COPY --chown=1000:1000 a /b'], /--chown=1000:1000 is not supported: .*0:0/],
    ['COPY with a symbolic mode', ['COPY --chmod=u+x a /b'], /no octal mode/],
    ['COPY without a destination', ['COPY a'], /takes a source and a destination/],
    ['ENV without a value', ['ENV a'], /a has no value/],
    ['ENV with a stray word', ['ENV a=1 b'], /"b" is not name=value/],
    ['an unknown modifier', ['ENV a=${b%x}'], /is not supported/],
    ['an open brace', ['WORKDIR /${b'], /no closing brace/],
    ['a variable that must be set', ['WORKDIR /${b:?say where}'], /b: say where/],
  ])('is refused when built for %s', async (_, lines, message) => {
    await expect(build(lines, { a: 'x' })).rejects.toMatchObject({
      code: 'INVALID_IMAGE',
      message: expect.stringMatching(message),
    })
  })
})

describe('words', () => {
  const syntax = {
    escape: '\\',
    refuse: (problem: string) => {
      throw new Error(problem)
    },
  }
  const env = { name: 'value', empty: '' }

  it.each([
    ['a b  c', ['a', 'b', 'c']],
    ['"a b" c\\ d', ['"a b"', 'c\\ d']],
    ["'a \"b' c", ["'a \"b'", 'c']],
    ['a=${b:-x y}', ['a=${b:-x y}']],
  ])('%s is split outside quotes', (text, words) => {
    expect(splitWords(text, syntax)).toEqual(words)
  })

  it.each([
    ['$name/${name}', 'value/value'],
    ['$nameless-', '-'],
    ["'$name'", '$name'],
    ['"$name"', 'value'],
    ['\\$name', '$name'],
    ['"\\a\\"\\$"', '\\a"$'],
    ['a\\ b', 'a b'],
    ['$5', '$5'],
    ['${empty:-d}|${empty-d}|${none-d}', 'd||d'],
    ['${name:+x}|${empty:+x}|${empty+x}|${none+x}', 'x||x|'],
    ['${none:-${name}/y}', 'value/y'],
    ['${none:-a b}', 'a b'],
    ['${constructor}', ''],
  ])('%s becomes %j', (text, expected) => {
    expect(expand(text, env, syntax)).toBe(expected)
  })
})
