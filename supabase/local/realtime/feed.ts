import { postgres, type Sql } from "./deps.ts";
import { pool, sentence } from "./database.ts";
import type { StoredMessage } from "./replay.ts";

const MESSAGES = "realtime_messages";
const MARKS = "realtime_marks";
/** Rows read back in one query. */
const BATCH = 256;
/** How often the mark moves while messages flow, and how long it may take to come back. */
const MARK_EVERY_MS = 5_000;
const MARK_TIMEOUT_MS = 10_000;
const RETRY_FIRST_MS = 50;
const RETRY_MOST_MS = 2_000;

export interface FeedOptions {
  dbUrl: string;
  /** Called for every committed broadcast row, in commit order. */
  deliver: (message: StoredMessage) => void;
  /** False when nobody listens to the topic: the row is not read back then. */
  wants: (topic: string) => boolean;
  log: (line: string) => void;
}

/** Ids announced before `snapshot` was taken are delivered or queued; `seen` are those announced since. */
interface Mark {
  snapshot: string;
  seen: Set<string>;
}

/**
 * Rows of `realtime.messages`, delivered after their commit, in commit order, none lost for connected clients.
 *
 * A trigger announces each row with NOTIFY, which PostgreSQL hands over only after commit and in commit order;
 * the row is read back by its id. When the listening connection breaks, announcements made meanwhile are gone,
 * so the feed remembers a mark: a database snapshot of which everything visible was announced to it. After
 * reconnecting it reads the rows that are not visible in that snapshot, leaves out those it has seen, and goes
 * on. Visibility, unlike a timestamp, cannot miss a transaction that began early and committed late.
 *
 * See docs/decisions/2026-11-23-realtime-feed.md.
 */
export class Feed {
  #options: FeedOptions;
  #reader: Sql;
  #mark: Mark | null = null;
  #candidate: { token: string; seen: Set<string>; arrived: () => void } | null = null;
  #queue: string[] = [];
  /** Announcements that arrive while missed rows are being looked for wait here, to stay behind them. */
  #held: string[] | null = null;
  #pumping = false;
  #closing = false;
  #close = Promise.withResolvers<void>();
  #finished: Promise<void> = Promise.resolve();
  #readyWaiters = new Set<() => void>();
  #ready = false;

  constructor(options: FeedOptions) {
    this.#options = options;
    this.#reader = pool(options.dbUrl, "realtime_feed_reader", 1);
  }

  /** True while announcements arrive. */
  get ready(): boolean {
    return this.#ready;
  }

  /** Resolves once the feed listens; raises when the database refuses the first attempt. */
  async start(): Promise<void> {
    const first = Promise.withResolvers<void>();
    this.#finished = this.#supervise(first);
    await first.promise;
  }

  /** Resolves true when the feed is ready within `ms`. */
  async whenReady(ms: number): Promise<boolean> {
    if (this.#ready) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const waiter = () => resolve(true);
    this.#readyWaiters.add(waiter);
    const timer = setTimeout(() => resolve(false), ms);
    const ready = await promise;
    clearTimeout(timer);
    this.#readyWaiters.delete(waiter);
    return ready;
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.#close.resolve();
    await this.#finished;
    await this.#reader.end({ timeout: 1 });
  }

  async #supervise(first: PromiseWithResolvers<void>): Promise<void> {
    let started = false;
    let wait = RETRY_FIRST_MS;
    while (!this.#closing) {
      try {
        await this.#session(() => {
          started = true;
          wait = RETRY_FIRST_MS;
          first.resolve();
        });
        if (!this.#closing) this.#options.log("the database feed lost its connection; reconnecting");
      } catch (error) {
        if (!started) return first.reject(error);
        this.#options.log(`the database feed cannot listen: ${sentence(error)}; trying again in ${wait} ms`);
      }
      if (this.#closing) break;
      await this.#pause(wait);
      wait = Math.min(wait * 2, RETRY_MOST_MS);
    }
    // Only matters when closing during the very first attempt.
    first.resolve();
  }

  /** One connection's life: listen, catch up, move the mark; returns when the connection is gone. */
  async #session(listening: () => void): Promise<void> {
    const lost = Promise.withResolvers<void>();
    const sql = postgres(
      this.#options.dbUrl,
      {
        max: 1,
        max_lifetime: null,
        fetch_types: false,
        onnotice: () => {},
        connection: { application_name: "realtime_feed" },
        onclose: () => lost.resolve(),
        onnotify: (channel: string, payload: string) => this.#notified(channel, payload),
      } as Parameters<typeof postgres>[1],
    );
    try {
      this.#mark ??= { snapshot: await snapshot(sql), seen: new Set() };
      this.#held = [];
      await sql.unsafe(`listen ${MESSAGES}; listen ${MARKS}`).simple();
      await this.#catchUp(sql, this.#mark);
      this.#setReady(true);
      listening();
      await this.#keepMark(sql, lost.promise);
    } finally {
      this.#setReady(false);
      // What arrived before the connection went is announced for good: it stays in line.
      this.#release([]);
      await sql.end({ timeout: 1 }).catch(() => {});
    }
  }

  /** Queues the rows whose announcement was missed, in the order of commit as far as the database keeps it. */
  async #catchUp(sql: Sql, mark: Mark): Promise<void> {
    const missed = await missedSince(sql, mark.snapshot);
    const fresh = missed.filter((id) => !mark.seen.has(id));
    for (const id of fresh) mark.seen.add(id);
    if (fresh.length) this.#options.log(`the database feed caught up with ${fresh.length} messages`);
    this.#release(fresh);
  }

  #release(missed: string[]): void {
    const held = this.#held ?? [];
    this.#held = null;
    this.#queue.push(...missed, ...held);
    void this.#pump();
  }

  /** Moves the mark while there is something to forget; an idle feed writes and asks nothing. */
  async #keepMark(sql: Sql, lost: Promise<void>): Promise<void> {
    const ended = Promise.race([lost, this.#close.promise]).then(() => true);
    while (true) {
      const timer = Promise.withResolvers<false>();
      const handle = setTimeout(() => timer.resolve(false), MARK_EVERY_MS);
      const over = await Promise.race([ended, timer.promise]);
      clearTimeout(handle);
      if (over) return;
      if (!this.#mark!.seen.size) continue;
      if (!await this.#moveMark(sql, ended)) return;
    }
  }

  /**
   * Takes a snapshot and announces a token of our own in the same statement. Every transaction visible in the
   * snapshot queued its announcements before that token, so when the token comes back, all of them have.
   */
  async #moveMark(sql: Sql, ended: Promise<boolean>): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const token = crypto.randomUUID();
    const candidate = { token, seen: new Set<string>(), arrived: () => resolve(true) };
    this.#candidate = candidate;
    const timer = setTimeout(() => resolve(false), MARK_TIMEOUT_MS);
    try {
      const query = sql<{ snapshot: string }[]>`
        select pg_current_snapshot()::text as snapshot, pg_notify(${MARKS}, ${token})`;
      const rows = await Promise.race([query, ended.then(() => null)]);
      if (rows === null) return false;
      const back = await Promise.race([promise, ended.then(() => false)]);
      if (back) this.#mark = { snapshot: rows[0].snapshot, seen: candidate.seen };
      return back;
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
      this.#candidate = null;
    }
  }

  #notified(channel: string, payload: string): void {
    if (channel === MARKS) {
      if (payload === this.#candidate?.token) this.#candidate.arrived();
      return;
    }
    if (channel !== MESSAGES) return;
    const { id, topic } = JSON.parse(payload) as { id: string; topic: string };
    // Two listeners of one row, say a mark and a missed row, must not make two deliveries.
    if (this.#mark?.seen.has(id)) return;
    this.#mark?.seen.add(id);
    this.#candidate?.seen.add(id);
    if (!this.#options.wants(topic)) return;
    if (this.#held) {
      this.#held.push(id);
      return;
    }
    this.#queue.push(id);
    void this.#pump();
  }

  /** Reads the queue back in batches, one at a time, so that the order holds. Keeps trying while the database is away. */
  async #pump(): Promise<void> {
    if (this.#pumping) return;
    this.#pumping = true;
    // Announcements of one commit arrive together: let them all in before the first read.
    await Promise.resolve();
    let wait = RETRY_FIRST_MS;
    while (this.#queue.length && !this.#closing) {
      const ids = this.#queue.slice(0, BATCH);
      try {
        const rows = await readBack(this.#reader, ids);
        for (const id of ids) {
          const row = rows.get(id);
          if (row) this.#deliver(row);
        }
        this.#queue.splice(0, ids.length);
        wait = RETRY_FIRST_MS;
      } catch (error) {
        this.#options.log(`the database feed cannot read: ${sentence(error)}; trying again in ${wait} ms`);
        await this.#pause(wait);
        wait = Math.min(wait * 2, RETRY_MOST_MS);
      }
    }
    this.#pumping = false;
  }

  #deliver(row: StoredMessage): void {
    try {
      this.#options.deliver(row);
    } catch (error) {
      this.#options.log(`message ${row.id} could not be delivered: ${sentence(error)}`);
    }
  }

  #setReady(ready: boolean): void {
    this.#ready = ready;
    if (ready) { for (const waiter of this.#readyWaiters) waiter(); }
  }

  async #pause(ms: number): Promise<void> {
    const timer = Promise.withResolvers<void>();
    const handle = setTimeout(() => timer.resolve(), ms);
    await Promise.race([timer.promise, this.#close.promise]);
    clearTimeout(handle);
  }
}

async function snapshot(sql: Sql): Promise<string> {
  const [row] = await sql<{ snapshot: string }[]>`select pg_current_snapshot()::text as snapshot`;
  return row.snapshot;
}

async function readBack(sql: Sql, ids: string[]): Promise<Map<string, StoredMessage>> {
  const rows = await sql<StoredMessage[]>`
    select id::text, topic, event, private, payload::text as payload, binary_payload as binary
    from realtime.messages
    where id = any(${ids}::uuid[]) and extension = 'broadcast' and event is not null
      and (payload is not null or binary_payload is not null)`;
  return new Map(rows.map((row) => [row.id, row]));
}

/**
 * Rows not visible in the snapshot. `xmin` has 32 bits and a snapshot 64, so the upper half is put back: a row
 * cannot be newer than the next transaction. Rows of one transaction keep their place in the table; the order
 * between transactions is that of commit where the server tracks it, of their start otherwise.
 */
async function missedSince(sql: Sql, since: string): Promise<string[]> {
  const [{ tracked }] = await sql<{ tracked: boolean }[]>`
    select current_setting('track_commit_timestamp')::boolean as tracked`;
  const committed = tracked ? sql`pg_xact_commit_timestamp(m.xmin)` : sql`null::timestamptz`;
  const rows = await sql<{ id: string }[]>`
    with at as (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next)
    select m.id::text
    from realtime.messages m, at,
      lateral (select at.next - at.next % 4294967296 + m.xmin::text::bigint as full_xid) f,
      lateral (select case when f.full_xid > at.next then f.full_xid - 4294967296 else f.full_xid end as xid) x
    where m.extension = 'broadcast'
      and not pg_visible_in_snapshot(greatest(x.xid, 0)::text::xid8, ${since}::pg_snapshot)
    order by ${committed}, m.inserted_at, m.tableoid, m.ctid`;
  return rows.map((row) => row.id);
}
