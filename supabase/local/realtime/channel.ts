import { bytesOf, toBroadcast } from "./broadcast.ts";
import { ChannelAccess } from "./channel_access.ts";
import { admitJoin, replayForJoin } from "./channel_join.ts";
import { ChannelPresence } from "./channel_presence.ts";
import type { Connection, Context } from "./context.ts";
import { errorText } from "./database.ts";
import { type Broadcast, type Frame, type Framing, type Incoming, isRecord, type Ref } from "./frames.ts";
import type { Member } from "./hub.ts";
import { isApiKey, type JoinParams, numbered } from "./join.ts";
import { TokenError } from "./jwt.ts";
import { payloadFits } from "./limits.ts";
import type { PresenceDiff } from "./presence.ts";
import { JoinRefused, joinRefused, Shutdown } from "./refusals.ts";
import type { StoredMessage } from "./replay.ts";
import { pause } from "./timing.ts";

const CHANGES_UNAVAILABLE =
  "The embedded stack does not support Postgres changes; use broadcast from the database instead";

/** One topic joined by one connection. Its messages are handled one after the other. */
export class Channel implements Member {
  readonly framing: Framing;
  #context: Context;
  #connection: Connection;
  #topic: string;
  #joinRef: Ref;
  #state: "joining" | "joined" | "closed" = "joining";
  #turn: Promise<void> = Promise.resolve();

  #params: JoinParams | null = null;
  #access: ChannelAccess;
  #presence: ChannelPresence;
  #replayed = new Set<string>();
  /** Broadcasts that arrive before the join is answered, so that none is lost and none comes first. */
  #early: [Broadcast, Frame][] | null = [];

  /** `topic` is bare, without `realtime:`. */
  constructor(context: Context, connection: Connection, topic: string, joinRef: Ref) {
    this.#context = context;
    this.#connection = connection;
    this.framing = connection.framing;
    this.#topic = topic;
    this.#joinRef = joinRef;
    this.#access = new ChannelAccess(
      context,
      topic,
      connection.headers,
      () => this.#next(() => this.#confirmToken()),
    );
    this.#presence = new ChannelPresence(context, topic, this);
  }

  get joinRef(): Ref {
    return this.#joinRef;
  }

  get wireTopic(): string {
    return `realtime:${this.#topic}`;
  }

  get #isPrivate(): boolean {
    return this.#params?.isPrivate ?? false;
  }

  join(message: Incoming): void {
    this.#next(async () => {
      try {
        await this.#join(message);
      } catch (error) {
        await this.#refuse(message.ref, error);
      }
    });
  }

  handle(message: Incoming): void {
    this.#next(async () => {
      if (this.#state !== "joined") return;
      try {
        await this.#handle(message);
      } catch (error) {
        if (error instanceof Shutdown) this.shutDown(error.message);
        else this.#crash(error);
      }
    });
  }

  /** `phx_leave`: answered, then closed. */
  leave(ref: Ref): void {
    this.#next(() => {
      this.#reply(ref, "ok", {});
      this.close();
      return Promise.resolve();
    });
  }

  receive(message: Broadcast, frame: Frame): void {
    if (this.#early) {
      this.#early.push([message, frame]);
      return;
    }
    if (!this.#access.mayReadBroadcast) return;
    if (message.kind !== "whole" && message.meta && this.#replayed.has(message.meta.id)) return;
    this.#connection.send(frame);
    this.#context.rates.messages.add();
    if (this.#context.rates.messages.exceeded) this.shutDown("Too many messages per second");
  }

  receivePresence(diff: PresenceDiff): void {
    if (this.#state !== "joined" || !this.#access.mayReadPresence) return;
    this.#context.rates.presence.add();
    this.#push("presence_diff", diff);
  }

  /** Ends the channel with the reason, so that the client does not expect more of it. */
  shutDown(message: string): void {
    if (this.#state === "closed") return;
    this.#system("system", "error", message);
    this.close();
  }

  /** Ends the channel with `phx_close`, the sign of a deliberate end. */
  close(): void {
    if (this.#state === "closed") return;
    this.#release();
    this.#push("phx_close", {}, this.#joinRef);
  }

  /** Another join of the same topic replaces this one. A client never told that it joined is not told it ended. */
  replace(): void {
    if (this.#state === "joining") this.abandon();
    else this.close();
  }

  /** The connection is gone: nothing is sent, only cleaned up. */
  abandon(): void {
    if (this.#state !== "closed") this.#release();
  }

  #release(): void {
    this.#state = "closed";
    this.#early = null;
    this.#access.end();
    this.#context.hub.leave(this.#topic, this.#isPrivate, this);
    this.#presence.untrack();
    this.#connection.forget(this);
  }

  #next(work: () => Promise<void>): void {
    this.#turn = this.#turn.then(() => (this.#state === "closed" ? undefined : work())).catch((error) =>
      this.#crash(error)
    );
  }

  #crash(error: unknown): void {
    this.#context.log(`channel ${this.#topic} crashed: ${errorText(error)}`);
    if (this.#state === "closed") return;
    this.#release();
    this.#push("phx_error", {}, this.#joinRef);
  }

  // Joining

  async #join({ ref, payload }: Incoming): Promise<void> {
    const { hub } = this.#context;
    const params = this.#params = admitJoin(this.#context, this.#connection, this.#topic, payload);
    this.#presence.configure(params.isPrivate, params.presenceKey);
    await this.#access.enter(
      params.accessToken ?? this.#connection.token,
      params.isPrivate,
      params.presenceEnabled,
    );
    if (this.#isClosed()) return;

    // Listening starts before the replay is read: a message is in one of them, and the ids say if in both.
    hub.join(this.#topic, params.isPrivate, this);
    const messages = await replayForJoin(
      this.#context,
      this.#topic,
      params,
      this.#access.mayReadBroadcast,
    );
    this.#replayed = new Set(messages.map(({ id }) => id));
    if (this.#isClosed()) return;

    this.#state = "joined";
    this.#reply(ref, "ok", { postgres_changes: numbered(params.postgresChanges) });
    for (const message of messages) this.#pushReplayed(message);
    const early = this.#early ?? [];
    this.#early = null;
    for (const [message, frame] of early) this.receive(message, frame);
    this.#afterJoin(params);
  }

  #afterJoin(params: JoinParams): void {
    if (params.postgresChanges.length) this.#system("postgres_changes", "error", CHANGES_UNAVAILABLE);
    if (params.presenceEnabled && this.#access.mayReadPresence) {
      if (this.#context.rates.presence.exceeded) {
        return this.shutDown("Too many presence messages per second");
      }
      this.#context.rates.presence.add();
      this.#push("presence_state", this.#presence.list());
    }
    if (params.replicationReady) void this.#sayWhenReplicating();
  }

  async #sayWhenReplicating(): Promise<void> {
    const ready = await this.#context.feed.whenReady(this.#context.limits.replicationReadyMs);
    if (this.#state !== "joined") return;
    if (ready) this.#system("system", "ok", "Replication connection established");
    else this.shutDown("Replication connection was not established in time");
  }

  async #refuse(ref: Ref, error: unknown): Promise<void> {
    const { log, limits } = this.#context;
    const refused = joinRefused(error, this.#topic);
    if (!(error instanceof JoinRefused)) log(`join of ${this.#topic} refused: ${errorText(error)}`);
    await pause(limits.channelErrorDelayMs);
    if (this.#isClosed()) return;
    // Not joined: no phx_close follows, and a client that tries again finds the topic free.
    this.#reply(ref, "error", { reason: refused.reason });
    this.#release();
    if (refused.dropConnection) this.#connection.drop("Too many joins per second");
  }

  // Hosted replays into the channel, not past it: v2 gets JSON text here, and bytes only for a binary message.
  #pushReplayed({ id, event, payload, binary }: StoredMessage): void {
    const meta = { id, replayed: true } as const;
    if (payload !== null) {
      this.#push("broadcast", { type: "broadcast", event, payload: JSON.parse(payload), meta });
      return;
    }
    const frame = this.framing.broadcast(this.wireTopic, { kind: "binary", event, body: binary!, meta });
    if (frame !== null) this.#connection.send(frame);
  }

  // Messages

  async #handle(message: Incoming): Promise<void> {
    switch (message.event) {
      case "broadcast":
        return await this.#broadcast(message);
      case "presence": {
        const { status, response } = await this.#presence.handle(
          message.payload,
          () => this.#access.mayTrack(),
        );
        return this.#reply(message.ref, status, response);
      }
      case "access_token": {
        const token = isRecord(message.payload) ? message.payload.access_token : undefined;
        if (typeof token === "string" && !isApiKey(token)) await this.#access.refresh(token);
        return;
      }
      default:
        this.#context.rates.messages.add();
        this.#context.log(`channel ${this.#topic}: received an unexpected ${message.event} message`);
    }
  }

  async #broadcast({ ref, payload }: Incoming): Promise<void> {
    // A denied send is never answered, not even with ack: hosted does not answer it either.
    if (!await this.#access.mayBroadcast()) return;
    this.#context.rates.messages.add();
    const { ack, self } = this.#params!;
    const message = toBroadcast(payload);
    if (message === null) {
      this.#context.log(`channel ${this.#topic}: received a broadcast with an unreadable payload`);
      return;
    }
    if (!payloadFits(bytesOf(payload), this.#context.limits)) {
      if (ack) this.#reply(ref, "error", { error: "payload_size_exceeded" });
      return;
    }
    this.#context.hub.broadcast(this.#topic, this.#isPrivate, message, self ? undefined : this);
    if (ack) this.#reply(ref, "ok", {});
  }

  async #confirmToken(): Promise<void> {
    try {
      await this.#access.confirm();
    } catch (error) {
      if (!(error instanceof TokenError)) throw error;
      this.shutDown(error.message);
    }
  }

  // Sending

  #reply(ref: Ref, status: "ok" | "error", response: Record<string, unknown>): void {
    this.#push("phx_reply", { status, response }, ref);
  }

  #push(event: string, payload: unknown, ref: Ref = null): void {
    this.#connection.push({ joinRef: this.#joinRef, ref, topic: this.wireTopic, event, payload });
  }

  #system(extension: "system" | "postgres_changes", status: "ok" | "error", message: string): void {
    this.#push("system", { extension, status, message, channel: this.#topic });
  }

  #isClosed(): boolean {
    return this.#state === "closed";
  }
}
