// /v1/functions: what is deployed, and how it is deployed, replaced and removed.

import { isMap, parseDocument } from 'yaml'
import { PlatformError } from '../../contract/errors.ts'
import { type Deps, parseName, type Routes, readBody } from '../http.ts'
import type { FunctionRecord } from '../registry.ts'

export function functionRoutes({ deployer, registry, log }: Deps): Routes {
  return {
    '/v1/functions': {
      GET: (c) => c.json({ functions: registry.list().map(summaryOf) }),
    },
    '/v1/functions/:name': {
      GET: (c) => c.json(registry.get(parseName(c))),
      async PUT(c) {
        const name = parseName(c)
        const manifest = parseBody(await readBody(c), c.req.header('content-type') ?? '')
        const { record, isNew } = await deployer.deploy(withName(manifest, name))
        log.info({ function: name, version: record.version, requestId: c.get('requestId') }, 'deployed')
        return c.json(record, isNew ? 201 : 200)
      },
      async DELETE(c) {
        const name = parseName(c)
        await deployer.remove(name)
        log.info({ function: name, requestId: c.get('requestId') }, 'removed')
        return c.body(null, 204)
      },
    },
  }
}

function summaryOf({ name, version, deployedAt, manifest, spec }: FunctionRecord) {
  return {
    name,
    version,
    image: manifest.image,
    contract: spec.contract,
    reuse: spec.reuse,
    pool: spec.pool,
    deployedAt,
  }
}

/** JSON where the client says so; else YAML, which JSON is a part of. */
function parseBody(body: Uint8Array, contentType: string): unknown {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(body)
    if (/^application\/(?:[\w.-]+\+)?json\b/i.test(contentType)) return JSON.parse(text)
    const document = parseDocument(text, { uniqueKeys: true })
    const [problem] = document.errors
    if (problem !== undefined) throw problem
    if (!isMap(document.contents)) throw new Error('a manifest is a mapping of names to values')
    return document.toJS({ maxAliasCount: 100 })
  } catch (cause) {
    throw new PlatformError('INVALID_MANIFEST', `manifest: ${(cause as Error).message}`, { cause })
  }
}

/** The path names the function; a manifest that names another one was sent to the wrong place. */
function withName(manifest: unknown, name: string): unknown {
  if (typeof manifest !== 'object' || manifest === null) return manifest
  const given = (manifest as { name?: unknown }).name
  if (given !== undefined && given !== name) {
    throw new PlatformError('INVALID_MANIFEST', `name: the manifest says ${JSON.stringify(given)} and the path ${name}`)
  }
  return { ...manifest, name }
}
