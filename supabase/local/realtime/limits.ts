/**
 * What one client, and all clients together, may do. The defaults are those of a generous plan: the embedded
 * stack serves one machine, so a limit here stops a runaway loop, it does not sell capacity.
 */
export interface Limits {
  /** Sockets open at once; one more gets HTTP 429 `Too many connected users`. */
  maxConnections: number;
  /** Joined channels a socket; one more gets `ChannelRateLimitReached`. */
  channelsPerConnection: number;
  /** Joins per second over all sockets, averaged; above it the join is refused and its socket dropped. */
  joinsPerSecond: number;
  /** Sends plus deliveries per second, averaged; above it, channels that receive anything are closed. */
  messagesPerSecond: number;
  /** Presence events (tracks, states, diffs to each receiver) per second, averaged. */
  presencePerSecond: number;
  /** Track and untrack calls a channel may make in `presenceWindowMs`. */
  presenceCallsPerWindow: number;
  presenceWindowMs: number;
  /** Largest broadcast or presence payload, in bytes of JSON. */
  payloadBytes: number;
  /** Largest frame a client may send, in bytes; a larger one closes the socket with 1009. */
  frameBytes: number;
  /** Unsent bytes a slow client may pile up before its socket is closed, so it cannot eat the memory. */
  bufferedBytes: number;
  /** Silence from a client, in ms, after which its socket is closed. Heartbeats are traffic. */
  idleMs: number;
  /** Pause before a refused connection is answered: it slows clients that retry in a loop. */
  connectErrorDelayMs: number;
  /** Pause before a refused join is answered. */
  channelErrorDelayMs: number;
  /** A channel's token is checked again this often, and at its expiry. */
  confirmTokenMs: number;
  /** How long `replication_ready` waits for the database feed before it closes the channel. */
  replicationReadyMs: number;
  /** Database connections that check policies. */
  authorizationPool: number;
  /** Policy checks that may run or wait at once; one more gets `IncreaseConnectionPool`. */
  authorizationQueue: number;
  /** A policy check that takes longer, in ms, is cancelled (`QueryCanceled`). */
  authorizationTimeoutMs: number;
  /** Width of one bucket of the rate averages; an average covers up to twelve. */
  rateTickMs: number;
  /** How often, in ms, the database feed moves the mark that it would catch up from. */
  feedMarkMs: number;
  /** Refuse public channels, as the hosted setting "Allow public access" does when it is off. */
  privateOnly: boolean;
}

export const DEFAULT_LIMITS: Limits = {
  maxConnections: 10_000,
  channelsPerConnection: 100,
  joinsPerSecond: 2_500,
  messagesPerSecond: 50_000,
  presencePerSecond: 1_000,
  presenceCallsPerWindow: 5,
  presenceWindowMs: 30_000,
  payloadBytes: 3_000_000,
  frameBytes: 5_000_000,
  bufferedBytes: 16_000_000,
  idleMs: 60_000,
  connectErrorDelayMs: 500,
  channelErrorDelayMs: 500,
  confirmTokenMs: 300_000,
  replicationReadyMs: 10_000,
  authorizationPool: 10,
  authorizationQueue: 5_000,
  authorizationTimeoutMs: 5_000,
  rateTickMs: 5_000,
  feedMarkMs: 5_000,
  privateOnly: true,
};

/** Hosted Realtime allows this much over the configured payload size, for the message's own frame. */
const PAYLOAD_PADDING = 500;
const BUCKETS = 12;

export function payloadFits(bytes: number, limits: Limits): boolean {
  return bytes <= limits.payloadBytes + PAYLOAD_PADDING;
}

/**
 * Events per second, averaged over the last twelve finished ticks at most, as hosted Realtime counts them:
 * a burst shorter than a tick passes, a sustained excess trips the limit until the average falls below it.
 */
export class RateCounter {
  #limit: number;
  #tickMs: number;
  #now: () => number;
  #tick: number;
  #count = 0;
  #buckets: number[] = [];

  constructor(limit: number, tickMs: number, now: () => number = () => performance.now()) {
    this.#limit = limit;
    this.#tickMs = tickMs;
    this.#now = now;
    this.#tick = Math.floor(now() / tickMs);
  }

  add(events = 1): void {
    this.#roll();
    this.#count += events;
  }

  get average(): number {
    this.#roll();
    if (this.#buckets.length === 0) return 0;
    const sum = this.#buckets.reduce((total, bucket) => total + bucket, 0);
    return sum / this.#buckets.length / (this.#tickMs / 1_000);
  }

  get limit(): number {
    return this.#limit;
  }

  get exceeded(): boolean {
    return this.average >= this.#limit;
  }

  #roll(): void {
    const tick = Math.floor(this.#now() / this.#tickMs);
    const passed = Math.min(tick - this.#tick, BUCKETS + 1);
    if (passed <= 0) return;
    this.#buckets.push(this.#count, ...new Array<number>(passed - 1).fill(0));
    this.#buckets = this.#buckets.slice(-BUCKETS);
    this.#count = 0;
    this.#tick = tick;
  }
}

/** So many calls in a window that starts at the first of them. */
export class CallWindow {
  #startedAt = -Infinity;
  #calls = 0;

  constructor(private readonly calls: number, private readonly windowMs: number) {}

  take(now = performance.now()): boolean {
    if (now - this.#startedAt > this.windowMs) {
      this.#startedAt = now;
      this.#calls = 0;
    }
    return ++this.#calls <= this.calls;
  }
}
