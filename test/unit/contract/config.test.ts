// Which settings there are and how they are refused.
import { describe, expect, it } from 'vitest'
import { readConfig, SETTINGS, settingsIn } from '../../../contract/config.ts'

describe('readConfig', () => {
  it('has a default for every setting', () => {
    expect(Object.keys(readConfig({}))).toEqual(Object.keys(SETTINGS))
    expect(readConfig({})).toMatchObject({ port: 8080, host: '127.0.0.1', uidBase: 0x7000_0000, allowDegraded: false })
  })

  it('takes a flag over the environment and the environment over the default', () => {
    const env = { PORT: '9000', MAYFLY_SLOTS: '16' }
    const from = (key: string, flags = {}) => settingsIn(env, flags).find((row) => row.key === key)
    expect(from('port', { port: '9001' })).toMatchObject({ value: 9001, source: 'flag' })
    expect(from('port')).toMatchObject({ value: 9000, source: 'environment' })
    expect(from('drainMs')).toMatchObject({ value: 30_000, source: 'default' })
  })

  it('talks to the port it serves on unless told otherwise', () => {
    expect(readConfig({ PORT: '9000' }).url).toBe('http://127.0.0.1:9000')
    expect(readConfig({ MAYFLY_URL: 'http://localhost:1/' }).url).toBe('http://localhost:1')
  })

  it('treats an empty variable as one that is not set', () => {
    expect(readConfig({ PORT: '' }).port).toBe(8080)
  })

  it.each([
    ['PORT', '65536'],
    ['PORT', '-1'],
    ['PORT', '0x10'],
    ['PORT', ' 80'],
    ['HOST', '0.0.0.0'],
    ['HOST', '::'],
    ['MAYFLY_HOME', 'relative'],
    ['MAYFLY_HOME', '/a\0b'],
    ['MAYFLY_URL', 'https://127.0.0.1'],
    ['MAYFLY_SLOTS', '0'],
    ['MAYFLY_SLOTS', '1.5'],
    ['MAYFLY_UID_BASE', '1000'],
    ['MAYFLY_UID_BASE', '4294967295'],
    ['MAYFLY_CGROUP', 'v1'],
    ['MAYFLY_ALLOW_DEGRADED', 'yes'],
    ['MAYFLY_LOG_LEVEL', 'loud'],
    ['MAYFLY_PAYLOAD_BYTES', '7000000'],
  ])('refuses %s=%s and names the variable', (name, value) => {
    expect(() => readConfig({ [name]: value })).toThrow(
      expect.objectContaining({ code: 'INVALID_SETTING', message: expect.stringContaining(`${name}: `) }),
    )
  })
})
