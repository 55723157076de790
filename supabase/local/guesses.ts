/** How often somebody may guess a password or a code: a ration for each address, and one for each account. */

interface Ration {
  /** Wrong tries in a row. */
  burst: number;
  /** One more try after this many seconds. */
  everyS: number;
}

/** As hosted limits an address: 30 in five minutes. */
const PER_ADDRESS: Ration = { burst: 30, everyS: 10 };
/** Whatever the address: about 1,500 a day, so that many addresses together do not guess a password of eight letters. */
const PER_ACCOUNT: Ration = { burst: 10, everyS: 60 };
/** Addresses and accounts that are remembered; the one that was not heard of for the longest time makes room. */
const REMEMBERED = 10_000;

class Buckets {
  #spent = new Map<string, { left: number; at: number }>();

  constructor(private readonly ration: Ration) {}

  /** Seconds until `key` may try again; 0: now. */
  waitS(key: string, now: number): number {
    const left = this.#left(key, now);
    return left >= 1 ? 0 : Math.ceil((1 - left) * this.ration.everyS);
  }

  add(key: string, tries: number, now: number): void {
    const left = Math.min(this.ration.burst, this.#left(key, now) + tries);
    this.#spent.delete(key);
    if (left >= this.ration.burst) return;
    this.#spent.set(key, { left, at: now });
    forgetOldest(this.#spent);
  }

  #left(key: string, now: number): number {
    const known = this.#spent.get(key);
    if (!known) return this.ration.burst;
    return Math.min(this.ration.burst, known.left + (now - known.at) / 1_000 / this.ration.everyS);
  }
}

export class Guesses {
  #addresses = new Buckets(PER_ADDRESS);
  #accounts = new Buckets(PER_ACCOUNT);
  /** `account address` of those who proved to be the account's owner: guesses of others do not lock them out. */
  #owners = new Map<string, true>();

  constructor(private readonly now: () => number = Date.now) {}

  /** Takes a try; the seconds to wait if there is none left, else 0. Each try is given back by `right`. */
  take(address: string, account: string): number {
    const now = this.now();
    const isOwner = this.#owners.has(`${account} ${address}`);
    const waitS = Math.max(
      this.#addresses.waitS(address, now),
      account && !isOwner ? this.#accounts.waitS(account, now) : 0,
    );
    if (waitS > 0) return waitS;
    this.#addresses.add(address, -1, now);
    if (account && !isOwner) this.#accounts.add(account, -1, now);
    return 0;
  }

  /** The try was right: it costs nothing, and whoever made it is the account's owner. */
  right(address: string, account: string): void {
    this.giveBack(address, account);
    if (!account) return;
    this.#owners.delete(`${account} ${address}`);
    this.#owners.set(`${account} ${address}`, true);
    forgetOldest(this.#owners);
  }

  /** The try was neither right nor wrong. */
  giveBack(address: string, account: string): void {
    const now = this.now();
    this.#addresses.add(address, 1, now);
    if (account && !this.#owners.has(`${account} ${address}`)) this.#accounts.add(account, 1, now);
  }
}

function forgetOldest(map: Map<string, unknown>): void {
  if (map.size <= REMEMBERED) return;
  const [oldest] = map.keys();
  map.delete(oldest);
}
