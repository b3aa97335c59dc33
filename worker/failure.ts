// In words, to who deployed the function: why a program could not be brought to wait for its call.
import { getSystemErrorName } from 'node:util'
import { type BuildFailure, syscallName } from '../native/index.ts'

export function describeFailure(failure: BuildFailure): string {
  switch (failure.why) {
    case 'stage':
      return describeStage(failure.stage, failure.errno)
    case 'exited':
      return `the program exited with ${failure.code} before it was called${quote(failure.output)}`
    case 'signaled':
      return `signal ${failure.signal} ended the program before it was called${quote(failure.output)}`
    case 'spoke':
      return `the program wrote to its stdout before it was called${quote(failure.output)}; such a program needs \`start: lazy\``
    case 'denied':
      return `the program made the forbidden system call ${syscallName(failure.syscall)} before it was called`
    case 'out_of_memory':
      return 'the program ran out of memory before it was called'
    case 'never_parked':
      return 'the program never came to wait for its call'
    case 'timed_out':
      return 'building its sandbox took too long'
  }
}

function describeStage(stage: string, errno: number): string {
  const name = errno > 0 ? getSystemErrorName(-errno) : 'unknown error'
  if (stage !== 'exec') return `stage ${stage} failed: ${name}`
  const why: Record<string, string> = {
    ENOENT: 'it, or the interpreter it names, is not in the image',
    EACCES: 'it is not executable for the function’s user',
    ENOEXEC: 'it is no program of this machine’s architecture, or a script without #!',
  }
  return `the program could not be executed: ${why[name] ?? name} (${name})`
}

function quote(output: string): string {
  const text = output.trim()
  return text === '' ? '' : `, saying ${JSON.stringify(text)}`
}
