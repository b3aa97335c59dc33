// The slots in which nothing is, and which of them a function had last.

export class ColdSlots {
  /** Low numbers last, so that they are taken first. */
  readonly #slots: number[]
  /** Of each slot, the function that had it last. */
  readonly #lastFunctions: number[] = []

  constructor(count: number) {
    this.#slots = Array.from({ length: count }, (_, index) => count - 1 - index)
  }

  get count(): number {
    return this.#slots.length
  }

  /** One that was this function's if there is one: sandboxd may have kept its cgroup. */
  take(functionId: number): number | undefined {
    const index = this.#slots.findLastIndex((slot) => this.#lastFunctions[slot] === functionId)
    const slot = index >= 0 ? this.#slots.splice(index, 1)[0] : this.#slots.pop()
    if (slot !== undefined) this.#lastFunctions[slot] = functionId
    return slot
  }

  giveBack(slot: number): void {
    this.#slots.push(slot)
  }
}
