// What survives a restart.
import { statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { setUp } from './_setup.ts'

describe('the registry', () => {
  it('has after a restart what it had before', async () => {
    const first = setUp()
    await first.deploy()
    const second = setUp({ home: first.home })
    expect(second.registry.list()).toEqual(first.registry.list())
    await second.registry.remove('echo')
    expect(setUp({ home: first.home }).registry.list()).toEqual([])
  })

  it('leaves a file out that is no record, and says which', async () => {
    const { home, deploy } = setUp()
    await deploy()
    writeFileSync(join(home, 'functions/bad.json'), '{')
    writeFileSync(join(home, 'functions/other.json'), '{"name":"echo","spec":{"name":"echo"}}')
    const again = setUp({ home })
    expect(again.registry.list().map(({ name }) => name)).toEqual(['echo'])
    expect(again.unreadable).toHaveLength(2)
  })

  it('is closed to others, since a manifest may hold secrets', () => {
    const { home } = setUp()
    expect(statSync(join(home, 'functions')).mode & 0o777).toBe(0o700)
  })

  it('takes two deploys of one name one after the other', async () => {
    const { deploy, pool, registry } = setUp()
    await Promise.all(['1', '2'].map((A) => deploy({ name: 'echo', image: 'echo', contract: 'link', env: { A } })))
    expect(registry.get('echo').spec).toEqual(pool.specs.get('echo'))
  })
})
