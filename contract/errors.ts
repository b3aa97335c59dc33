// What we did wrong, or what the caller asked in vain: one class, one table from code to HTTP status. An operator or
// the caller mends these; what a function's author mends is an Outcome (outcome.ts).

export const CODES = {
  INVALID_REQUEST: { http: 400, retryable: false },
  INVALID_MANIFEST: { http: 422, retryable: false },
  INVALID_IMAGE: { http: 422, retryable: false },
  FUNCTION_NOT_FOUND: { http: 404, retryable: false },
  IMAGE_NOT_FOUND: { http: 404, retryable: false },
  SANDBOX_NOT_FOUND: { http: 404, retryable: false },
  NOT_FOUND: { http: 404, retryable: false },
  METHOD_NOT_ALLOWED: { http: 405, retryable: false },
  PAYLOAD_TOO_LARGE: { http: 413, retryable: false },
  /** The function's version cannot be started: its breaker is open. */
  START_FAILED: { http: 502, retryable: false },
  /** Every slot is taken and the wait for one ran out. */
  NO_CAPACITY: { http: 503, retryable: true },
  /** SIGTERM came: no new calls. */
  DRAINING: { http: 503, retryable: true },
  /** An ancestor's limit, not the function's own, ended the sandbox. */
  HOST_OUT_OF_MEMORY: { http: 503, retryable: true },
  /** A sandbox could not be built, or died before its call. */
  SETUP_FAILED: { http: 503, retryable: true },
  /** sandboxd is gone; this process must start again. */
  SANDBOXD_LOST: { http: 503, retryable: true },
  /** The host lacks something; the message names the remedy. */
  HOST_UNFIT: { http: 500, retryable: false },
  /** Another process holds MAYFLY_HOME. */
  HOME_BUSY: { http: 500, retryable: false },
  INVALID_SETTING: { http: 500, retryable: false },
  INTERNAL: { http: 500, retryable: false },
} as const satisfies Record<string, { http: number; retryable: boolean }>

export type Code = keyof typeof CODES

/** `message` is written for the client; the cause is for the log only. */
export class PlatformError extends Error {
  readonly code: Code
  constructor(code: Code, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'PlatformError'
    this.code = code
  }
}
