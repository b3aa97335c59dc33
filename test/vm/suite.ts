// Start-up, leases, every limit and every outcome, on whatever host this runs: test/vm/run.ts runs it on a stock kernel
// with cgroup v2, as root and as an ordinary user. For node's own runner: vitest takes ten times longer to start there.
import { after, before } from 'node:test'
import { world } from './_world.ts'

before(() => world.open())
after(() => world.close())

// In this order, and in one process: the last part ends the pool.
await import('./suite/leases.ts')
await import('./suite/limits.ts')
await import('./suite/outcomes.ts')
await import('./suite/sandbox.ts')
await import('./suite/end.ts')
