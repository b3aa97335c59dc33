// The peers that are called from Node, those that keep less apart first.
import type { CalledPeer } from './callee.ts'
import { spawnNative, spawnNode } from './child-process.ts'
import { goJudge } from './go-judge.ts'
import { hono } from './hono.ts'
import { freshContext, freshIsolate } from './isolated-vm.ts'
import { piscina } from './piscina.ts'
import { workerd } from './workerd.ts'

export const CALLED_PEERS: readonly CalledPeer[] = [
  piscina,
  hono,
  workerd,
  freshContext,
  freshIsolate,
  spawnNative,
  spawnNode,
  goJudge,
]
