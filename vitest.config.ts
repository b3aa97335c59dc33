// Which tests exist: `unit` needs nothing, `integration` builds real sandboxes, `escape` runs hostile functions in them.
import { defineConfig } from 'vitest/config'

// One sandbox server at a time: two suites would compete for cores, cgroups and the state folder's lock.
const privileged = { fileParallelism: false, testTimeout: 60_000, hookTimeout: 120_000 }

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts', 'test/architecture.test.ts'] } },
      { test: { name: 'integration', include: ['test/integration/**/*.test.ts'], ...privileged } },
      { test: { name: 'escape', include: ['test/escape/**/*.test.ts'], ...privileged } },
    ],
  },
})
