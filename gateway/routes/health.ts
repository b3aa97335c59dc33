// /healthz: this process answers. /readyz: it may be sent invocations.
import type { Deps, Routes } from '../http.ts'

export function healthRoutes({ phase }: Deps): Routes {
  return {
    '/healthz': { GET: (c) => c.json({ status: 'ok' }) },
    '/readyz': { GET: (c) => c.json({ status: phase() }, phase() === 'ready' ? 200 : 503) },
  }
}
