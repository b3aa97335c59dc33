// workerd: the runtime of Cloudflare's workers, a V8 isolate per worker that all of its calls share, over HTTP. Its own
// documentation says that it is no sandbox by itself.
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CalledPeer } from './callee.ts'
import { openEcho } from './http-echo.ts'
import { makePeersFolder, requirePeer } from './place.ts'
import { Program } from './program.ts'

const CONFIG = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "echo", worker = .echo)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "echo")],
);
const echo :Workerd.Worker = (
  modules = [(name = "echo", esModule = embed "echo.js")],
  compatibilityDate = "2025-01-01",
);
`
const WORKER = 'export default { fetch: async (request) => new Response(await request.arrayBuffer()) }\n'

export const workerd: CalledPeer = {
  name: 'workerd over HTTP',
  isolated: 'V8 isolate, in a process of its own',
  fresh: '-',
  package: 'workerd',
  async open() {
    const { default: binary } = requirePeer('workerd') as { default: string }
    const folder = await makePeersFolder('workerd')
    await writeFile(join(folder, 'config.capnp'), CONFIG)
    await writeFile(join(folder, 'echo.js'), WORKER)
    const program = new Program([binary, 'serve', join(folder, 'config.capnp'), '--control-fd=3'])
    return await openEcho(program)
  },
}
