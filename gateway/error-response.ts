// How an error of ours becomes an HTTP answer: the only place that does it, and CODES the only table it reads.
// An INTERNAL error tells the client nothing; its cause is for the log.
import { CODES, PlatformError } from '../contract/errors.ts'

export interface ErrorAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: { readonly error: { readonly code: string; readonly message: string; readonly requestId: string } }
}

export function errorAnswer(error: unknown, requestId: string): ErrorAnswer {
  const known =
    error instanceof PlatformError ? error : new PlatformError('INTERNAL', 'internal error', { cause: error })
  const { http, retryable } = CODES[known.code]
  const message = known.code === 'INTERNAL' ? 'internal error' : known.message
  // A second is guessed; nothing depends on it but the patience of well-behaved clients.
  const headers: Record<string, string> = retryable ? { 'Retry-After': '1' } : {}
  return { status: http, headers, body: { error: { code: known.code, message, requestId } } }
}
