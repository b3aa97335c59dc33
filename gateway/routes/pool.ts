// What is behind the functions: the pool's counts, its sandboxes one by one, the images in the store.
import type { Deps, Routes } from '../http.ts'

export function poolRoutes({ pool, store }: Deps): Routes {
  return {
    '/v1/pool': { GET: (c) => c.json(pool.stats()) },
    '/v1/sandboxes': { GET: (c) => c.json({ sandboxes: pool.sandboxes() }) },
    '/v1/sandboxes/:id': { GET: async (c) => c.json(await pool.inspect(c.req.param('id') ?? '')) },
    '/v1/images': { GET: async (c) => c.json({ images: await store.list() }) },
  }
}
