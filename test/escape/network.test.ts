// Of the network: a loopback of its own and nothing of the host's, and a channel that is the function's only peer.
import { createServer, type Server } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { descriptorsOf, processesOfPool } from '../_host.ts'
import { privileged, useHouse } from '../_setup.ts'

const AF_INET = 2
const AF_NETLINK = 16
const AF_ALG = 38
const AF_VSOCK = 40

/** What a neighbour on the host would listen on. */
const ABSTRACT = `mayfly-test-${process.pid}`
const servers: Server[] = []
let port = 0

beforeAll(async () => {
  const tcp = createServer().listen(0, '127.0.0.1')
  const unix = createServer().listen(`\0${ABSTRACT}`)
  servers.push(tcp, unix)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.once('listening', resolve))))
  const address = tcp.address()
  port = address !== null && typeof address === 'object' ? address.port : 0
})
afterAll(() => {
  for (const server of servers) server.close()
})

/** Descriptors of everything that has an end of a function's sockets. */
function descriptorsOfSupervisors(): number {
  const daemons = processesOfPool().filter(({ name }) => name.startsWith('mayfly-sandboxd'))
  return daemons.reduce((sum, { pid }) => sum + descriptorsOf(pid), descriptorsOf(process.pid))
}

privileged('network', () => {
  describe('with every layer on', () => {
    const house = useHouse()

    it('has a loopback that works and no other interface', async () => {
      const seen = (await house.row('loopback')) as { interfaces: string[] }
      expect(seen).toMatchObject({ bind: 0, listen: 0, connect: 0, byte: 33 })
      const names = seen.interfaces.map((line) => /^\s*(\S+):/.exec(line)?.[1]).filter((name) => name !== undefined)
      expect(names).toEqual(['lo'])
    })

    it('reaches neither a port nor an abstract name of the host', async () => {
      expect(await house.row(`reach_host ${port} ${ABSTRACT}`)).toMatchObject({
        port: 'ECONNREFUSED',
        abstract: 'ECONNREFUSED',
      })
    })

    it('opens no family that is not of this namespace', async () => {
      expect(await house.row(`sockets ${AF_INET} ${AF_NETLINK} ${AF_ALG} ${AF_VSOCK}`)).toMatchObject({
        [AF_INET]: 0,
        [AF_NETLINK]: 'EAFNOSUPPORT',
        [AF_ALG]: 'EAFNOSUPPORT',
        [AF_VSOCK]: 'EAFNOSUPPORT',
      })
    })

    it('cannot fill the descriptor tables of those it talks to', async () => {
      await house.rest()
      const before = descriptorsOfSupervisors()
      const { outcome } = await house.invoke('flood_descriptors')
      expect(['failed', 'ok']).toContain(outcome.status)
      await house.rest()
      expect(descriptorsOfSupervisors()).toBe(before)
    })

    it('cannot change how we read what it shares with us', async () => {
      const seen = await house.row('flip_flags')
      expect(Object.keys(seen['set'] as object)).toEqual(['0', '1', '2', '3'])
      const { outcome } = await house.invoke('log 20000')
      expect(outcome).toMatchObject({ status: 'ok' })
      expect(outcome.logs.length).toBe(20_000)
    })
  })

  describe('without its network namespace', () => {
    const house = useHouse({ ablate: ['net_ns'] })

    it('shares the house’s, which is down and not the host’s either', async () => {
      const [first, second] = [await house.row('namespaces'), await house.row('namespaces')]
      expect(first['net']).toBe(second['net'])
      expect(await house.row('loopback')).toMatchObject({ connect: 'ENETUNREACH' })
      expect(await house.row(`reach_host ${port} ${ABSTRACT}`)).toMatchObject({ abstract: 'ECONNREFUSED' })
    })
  })

  describe('without the filter', () => {
    const house = useHouse({ ablate: ['seccomp'] })

    it('opens families that no namespace contains', async () => {
      expect(await house.row(`sockets ${AF_INET} ${AF_NETLINK}`)).toMatchObject({ [AF_NETLINK]: 0 })
    })
  })
})
