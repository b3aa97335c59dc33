// The peers that are started for each call, the plainest first: what a call without a ready sandbox is compared with.
import type { Bed } from '../bed.ts'
import { bwrap } from './bwrap.ts'
import { firejail } from './firejail.ts'
import { nspawn } from './nspawn.ts'
import { crun, runc } from './oci.ts'
import type { Peer } from './peer.ts'
import { plain } from './plain.ts'
import { unshare } from './unshare.ts'

export function coldPeers(bed: Bed): readonly Peer[] {
  return [plain(bed.root), unshare, bwrap, runc, crun, firejail, nspawn]
}
