// How an image says to run it: the config document (OCI image-spec v1, config.md) to and from our ImageConfig.
import { z } from 'zod'
import { PlatformError } from '../contract/errors.ts'
import type { ImageConfig } from '../contract/function.ts'
import { DIGEST, type ImageManifest, parseDocument } from './manifest.ts'

/** Docker's for images from scratch; without it `ENTRYPOINT ["sh"]` would find nothing. */
export const PATH_DEFAULT = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** OCI's names of the machines we run on. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' }

const withoutNul = z.string().refine((text) => !text.includes('\0'), 'must not contain NUL')
const configSchema = z.object({
  architecture: z.string(),
  os: z.literal('linux'),
  rootfs: z.object({ type: z.literal('layers'), diff_ids: z.array(z.string().regex(DIGEST)) }),
  config: z
    .object({
      Entrypoint: z.array(withoutNul).nullish(),
      Cmd: z.array(withoutNul).nullish(),
      Env: z.array(withoutNul.regex(/^[^=]+=/, 'is not NAME=value')).nullish(),
      WorkingDir: withoutNul.nullish(),
      User: z
        .string()
        .regex(/^(\d{1,10}(:\d{1,10})?)?$/, 'is no numeric uid or uid:gid')
        .nullish(),
      Labels: z.record(z.string(), z.string()).nullish(),
    })
    .nullish(),
})

export function encodeConfig(config: ImageConfig, diffIds: readonly string[], createdSeconds?: number): string {
  return JSON.stringify({
    ...(createdSeconds !== undefined && { created: new Date(createdSeconds * 1000).toISOString() }),
    architecture: ARCHITECTURES[process.arch] ?? process.arch,
    os: 'linux',
    config: {
      ...(config.user && { User: config.user }),
      Env: Object.entries(config.env).map(([name, value]) => `${name}=${value}`),
      ...(config.entrypoint.length > 0 && { Entrypoint: config.entrypoint }),
      ...(config.cmd.length > 0 && { Cmd: config.cmd }),
      WorkingDir: config.workingDir || '/',
      ...(Object.keys(config.labels).length > 0 && { Labels: config.labels }),
    },
    rootfs: { type: 'layers', diff_ids: diffIds },
  })
}

export function parseConfig(bytes: Uint8Array, manifest: ImageManifest): ImageConfig {
  const what = `config ${manifest.config.digest}`
  const { config, rootfs } = parseDocument(configSchema, bytes, what)
  if (rootfs.diff_ids.join() !== manifest.layers.map((layer) => layer.digest).join()) {
    throw new PlatformError('INVALID_IMAGE', `image ${what}: rootfs.diff_ids are not the manifest's layers`)
  }
  const env = (config?.Env ?? []).map((entry): [string, string] => {
    const at = entry.indexOf('=')
    return [entry.slice(0, at), entry.slice(at + 1)]
  })
  return {
    entrypoint: config?.Entrypoint ?? [],
    cmd: config?.Cmd ?? [],
    env: Object.fromEntries(env),
    workingDir: config?.WorkingDir ?? '',
    user: config?.User ?? '',
    labels: config?.Labels ?? {},
  }
}
