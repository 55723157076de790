import { postgres, type Sql } from "./deps.ts";
import { errorText, pool } from "./database.ts";
import { idsFrom, readBack, snapshot } from "./feed_sql.ts";
import { SeenMessages } from "./marks.ts";
import type { StoredMessage } from "./replay.ts";

const MESSAGES = "realtime_messages";
const MARKS = "realtime_marks";
/** Rows read back in one query. */
const BATCH = 256;
/** How long a mark may take to come back before the connection counts as lost. */
const MARK_TIMEOUT_MS = 10_000;
const RETRY_FIRST_MS = 50;
const RETRY_MOST_MS = 2_000;

export interface FeedOptions {
  dbUrl: string;
  /** Called for every committed broadcast row, in commit order. */
  deliver: (message: StoredMessage) => void;
  /** False if no channel listens to the topic: the row is not read back then. */
  wants: (topic: string) => boolean;
  /** How often the mark moves while messages flow, in ms. */
  markEveryMs: number;
  log: (line: string) => void;
}

/**
 * Rows of `realtime.messages`, delivered after their commit, in commit order, none lost for connected clients.
 *
 * A trigger announces each row with NOTIFY, which PostgreSQL hands over only after commit and in commit order;
 * the row is read back by its id. When the listening connection breaks, announcements made meanwhile are gone,
 * so the feed keeps a mark: a database snapshot of which everything visible was announced to it. After
 * reconnecting it reads the rows of every transaction that was running then or began later, leaves out those
 * it has seen, and goes on. Transaction ids, unlike timestamps, cannot miss what began early and committed
 * late. (They are compared with the snapshot's lower bound and not by pg_visible_in_snapshot, which knows no
 * subtransactions, and realtime.send runs in one.)
 *
 * See docs/decisions/2026-11-23-realtime-feed.md.
 */
export class Feed {
  #options: FeedOptions;
  #reader: Sql;
  #seen: SeenMessages | null = null;
  #awaited: { token: string; arrived: () => void } | null = null;
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
        this.#options.log(`the database feed cannot listen: ${errorText(error)}; retrying in ${wait} ms`);
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
      this.#seen ??= new SeenMessages((await snapshot(sql)).xmin);
      this.#held = [];
      await sql.unsafe(`listen ${MESSAGES}; listen ${MARKS}`).simple();
      await this.#catchUp(sql, this.#seen);
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
  async #catchUp(sql: Sql, seen: SeenMessages): Promise<void> {
    const fresh = (await idsFrom(sql, seen.floor)).filter((id) => !seen.has(id));
    for (const id of fresh) seen.add(id);
    if (fresh.length) this.#options.log(`the database feed caught up with ${fresh.length} messages`);
    this.#release(fresh);
  }

  #release(missed: string[]): void {
    const held = this.#held ?? [];
    this.#held = null;
    this.#queue.push(...missed, ...held);
    void this.#pump();
  }

  /** Moves the mark while there is something to forget; an idle feed writes and reads nothing. */
  async #keepMark(sql: Sql, lost: Promise<void>): Promise<void> {
    const ended = Promise.race([lost, this.#close.promise]).then(() => true);
    while (true) {
      const timer = Promise.withResolvers<false>();
      const handle = setTimeout(() => timer.resolve(false), this.#options.markEveryMs);
      const over = await Promise.race([ended, timer.promise]);
      clearTimeout(handle);
      if (over) return;
      if (this.#seen!.isEmpty) continue;
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
    this.#awaited = { token, arrived: () => resolve(true) };
    const timer = setTimeout(() => resolve(false), MARK_TIMEOUT_MS);
    // Before the snapshot is asked for: what is announced from here on may not be visible in it.
    const confirm = this.#seen!.split();
    try {
      const query = snapshot(sql, sql`, pg_notify(${MARKS}, ${token})`);
      const taken = await Promise.race([query, ended.then(() => null)]);
      const back = taken !== null && await Promise.race([promise, ended.then(() => false)]);
      if (back) confirm(taken);
      return back;
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
      this.#awaited = null;
    }
  }

  #notified(channel: string, payload: string): void {
    if (channel === MARKS) {
      if (payload === this.#awaited?.token) this.#awaited.arrived();
      return;
    }
    if (channel !== MESSAGES) return;
    const { id, topic } = JSON.parse(payload) as { id: string; topic: string };
    // Listening starts before the missed rows are read, so a row may turn up twice.
    if (this.#seen!.has(id)) return;
    this.#seen!.add(id);
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
        this.#options.log(`the database feed cannot read: ${errorText(error)}; retrying in ${wait} ms`);
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
      this.#options.log(`message ${row.id} could not be delivered: ${errorText(error)}`);
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
