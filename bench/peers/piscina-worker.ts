// What runs in piscina's threads.
export function echo(payload: Uint8Array): Uint8Array {
  return payload
}
