// What the gateway needs of the pool and of the image store, as narrow as it uses them. The composition root
// (server.ts) passes the real ones; a unit test passes small ones through the same parameter.
import type { FunctionSpec, Image } from '../contract/function.ts'
import type { Invocation, InvokeOptions } from '../contract/invocation.ts'

/** A report that the gateway hands on as JSON without looking into it. */
type Report = object

export interface FunctionPool {
  deploy(spec: FunctionSpec): Promise<void>
  remove(name: string): Promise<void>
  invoke(name: string, payload: Uint8Array, options?: InvokeOptions): Promise<Invocation>
  unpackLayer(diffId: string, tarPath: string): Promise<void>
  stats(): Report
  sandboxes(): readonly Report[]
  inspect(id: string): Promise<Report>
}

export interface ImageStore {
  readImage(reference: string): Image | Promise<Image>
  blobPath(digest: string): string
  list(): readonly Report[] | Promise<readonly Report[]>
}
