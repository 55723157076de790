/** What the feed remembers, so that nothing is lost or delivered twice when its connection breaks. */

export interface Snapshot {
  /** Every transaction below it had ended. */
  xmin: bigint;
  /** No transaction from it on had begun. */
  xmax: bigint;
}

const MAX_XID = 2n ** 64n;

/**
 * What was announced so far, as far as it must be remembered. Every transaction that ended below `floor` has
 * been announced. A set may be forgotten once the floor has passed its `below`: the transaction ids of its
 * rows are all smaller.
 */
export class SeenMessages {
  #latest = new Set<string>();
  #sets: { ids: Set<string>; below: bigint }[] = [];

  constructor(public floor: bigint) {}

  get isEmpty(): boolean {
    return this.#latest.size === 0 && this.#sets.length === 0;
  }

  has(id: string): boolean {
    return this.#latest.has(id) || this.#sets.some(({ ids }) => ids.has(id));
  }

  add(id: string): void {
    this.#latest.add(id);
  }

  /** Starts a new set, and returns the way to say up to where everything in the one before is known. */
  split(): (snapshot: Snapshot) => void {
    if (this.#latest.size) this.#sets.push({ ids: this.#latest, below: MAX_XID });
    this.#latest = new Set();
    return ({ xmin, xmax }) => {
      // Sets of earlier tries that got no answer are older still.
      for (const set of this.#sets) if (set.below === MAX_XID) set.below = xmax;
      this.floor = xmin;
      this.#sets = this.#sets.filter(({ below }) => below > xmin);
    };
  }
}
