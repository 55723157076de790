import { AuthorizeError, type Caller } from "./authorize.ts";
import { type Context, pause } from "./context.ts";
import { sentence } from "./database.ts";
import {
  type Broadcast,
  type Frame,
  type Framing,
  type Incoming,
  isRecord,
  type Ref,
  UserPush,
} from "./frames.ts";
import { isApiKey, type JoinParams, numbered, parseJoin } from "./join.ts";
import { type Claims, TokenError } from "./jwt.ts";
import { CallWindow, payloadFits } from "./limits.ts";
import type { PresenceDiff } from "./presence.ts";
import { parseReplay, replay, ReplayParamsInvalid, type StoredMessage } from "./replay.ts";
import type { Socket } from "./socket.ts";

/** A join that is refused; `reason` is what the client is told, word for word as hosted Realtime puts it. */
class JoinRefused extends Error {
  constructor(readonly reason: string, readonly dropSocket = false) {
    super(reason);
  }
}

/** A joined channel that must end; the client gets `message` in a `system` error and then `phx_close`. */
class Shutdown extends Error {}

/** Null: not asked yet. A public channel has no policies, so everything is true. */
interface Policies {
  readBroadcast: boolean;
  readPresence: boolean | null;
  writeBroadcast: boolean | null;
  writePresence: boolean | null;
}

const PUBLIC: Policies = {
  readBroadcast: true,
  readPresence: true,
  writeBroadcast: true,
  writePresence: true,
};
const CHANGES_UNAVAILABLE =
  "Postgres changes are not offered by the embedded stack; use broadcast from the database instead";

/** One topic joined by one socket. Its messages are handled one after the other. */
export class Channel {
  readonly framing: Framing;
  #context: Context;
  #socket: Socket;
  #topic: string;
  #joinRef: Ref;
  #state: "joining" | "joined" | "closed" = "joining";
  #turn: Promise<void> = Promise.resolve();

  #params: JoinParams | null = null;
  #token = "";
  #claims: Claims | null = null;
  #policies: Policies = PUBLIC;
  #confirmTimer: ReturnType<typeof setTimeout> | undefined;
  #replayed = new Set<string>();
  /** Broadcasts that arrive before the join is answered, so that none is lost and none comes first. */
  #early: [Broadcast, Frame][] | null = [];
  #presenceCalls: CallWindow;
  #presencePayload: string | null = null;

  /** `topic` is bare, without `realtime:`. */
  constructor(context: Context, socket: Socket, topic: string, joinRef: Ref) {
    this.#context = context;
    this.#socket = socket;
    this.framing = socket.framing;
    this.#topic = topic;
    this.#joinRef = joinRef;
    const { presenceCallsPerWindow, presenceWindowMs } = context.limits;
    this.#presenceCalls = new CallWindow(presenceCallsPerWindow, presenceWindowMs);
  }

  get joinRef(): Ref {
    return this.#joinRef;
  }

  get wireTopic(): string {
    return `realtime:${this.#topic}`;
  }

  /** Private and public topics of one name have nothing to do with each other. */
  get #presenceTopic(): string {
    return `${this.#isPrivate ? "private" : "public"}:${this.#topic}`;
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
    if (!this.#policies.readBroadcast) return;
    if (message.kind !== "whole" && message.meta && this.#replayed.has(message.meta.id)) return;
    this.#socket.send(frame);
    this.#context.rates.messages.add();
    if (this.#context.rates.messages.exceeded) this.shutDown("Too many messages per second");
  }

  receivePresence(diff: PresenceDiff): void {
    if (this.#state !== "joined" || this.#policies.readPresence !== true) return;
    this.#context.rates.presence.add();
    this.#push("presence_diff", diff);
  }

  /** Ends the channel with the reason; the client is told not to expect more of it. */
  shutDown(message: string): void {
    if (this.#state === "closed") return;
    this.#system("system", "error", message);
    this.close();
  }

  /** Ends the channel with `phx_close`, the sign of a deliberate end. */
  close(): void {
    if (this.#state === "closed") return;
    this.#release();
    this.#socket.push({
      joinRef: this.#joinRef,
      ref: this.#joinRef,
      topic: this.wireTopic,
      event: "phx_close",
      payload: {},
    });
  }

  /** Another join of the same topic takes its place; who was never told it had joined is not told it ended. */
  replace(): void {
    if (this.#state === "joining") this.abandon();
    else this.close();
  }

  /** The socket is gone: no more words, only tidying up. */
  abandon(): void {
    if (this.#state !== "closed") this.#release();
  }

  #release(): void {
    this.#state = "closed";
    this.#early = null;
    clearTimeout(this.#confirmTimer);
    this.#context.hub.leave(this.#topic, this.#isPrivate, this);
    const diff = this.#context.presence.untrack(this.#presenceTopic, this);
    if (diff) this.#tellPresence(diff);
    this.#socket.forget(this);
  }

  #next(work: () => Promise<void>): void {
    this.#turn = this.#turn.then(() => (this.#state === "closed" ? undefined : work())).catch((error) =>
      this.#crash(error)
    );
  }

  #crash(error: unknown): void {
    this.#context.log(`channel ${this.#topic} crashed: ${sentence(error)}`);
    if (this.#state === "closed") return;
    this.#release();
    this.#socket.push({
      joinRef: this.#joinRef,
      ref: this.#joinRef,
      topic: this.wireTopic,
      event: "phx_error",
      payload: {},
    });
  }

  // Joining

  async #join({ ref, payload }: Incoming): Promise<void> {
    const { limits, rates, hub } = this.#context;
    if (this.#topic === "") throw new JoinRefused("TopicNameRequired: You must provide a topic name");
    if (this.#context.closing) {
      throw new JoinRefused("RealtimeRestarting: Realtime is restarting, please standby");
    }
    const params = this.#params = parseJoin(payload);
    this.#token = params.accessToken ?? this.#socket.token;
    if (limits.privateOnly && !params.isPrivate) {
      throw new JoinRefused("PrivateOnly: This project only allows private channels");
    }
    if (rates.joins.exceeded) {
      throw new JoinRefused("ClientJoinRateLimitReached: Too many joins per second", true);
    }
    rates.joins.add();
    if (this.#socket.channelCount > limits.channelsPerConnection) {
      throw new JoinRefused("ChannelRateLimitReached: Too many channels");
    }

    await this.#confirmToken();
    if (params.isPrivate) this.#policies = await this.#readPolicies(params.presenceEnabled);
    if (!mayRead(this.#policies)) throw new JoinRefused(`Unauthorized: ${this.#notPermitted}`);
    if (this.#isClosed()) return;

    // Listening starts before the replay is read: a message is in one of them, and the ids say if in both.
    hub.join(this.#topic, params.isPrivate, this);
    const messages = await this.#replay(params);
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
    if (params.presenceEnabled && this.#policies.readPresence) {
      if (this.#context.rates.presence.exceeded) {
        return this.shutDown("Too many presence messages per second");
      }
      this.#context.rates.presence.add();
      this.#push("presence_state", this.#context.presence.list(this.#presenceTopic));
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
    if (!(error instanceof JoinRefused)) log(`join of ${this.#topic} refused: ${sentence(error)}`);
    await pause(limits.channelErrorDelayMs);
    if (this.#isClosed()) return;
    // Not joined: no phx_close follows, and a client that tries again finds the topic free.
    this.#reply(ref, "error", { reason: refused.reason });
    this.#release();
    if (refused.dropSocket) this.#socket.drop("Too many joins per second");
  }

  async #replay(params: JoinParams): Promise<StoredMessage[]> {
    if (params.replay === undefined || params.replay === null) return [];
    if (!this.#policies.readBroadcast) throw new JoinRefused(`Unauthorized: ${this.#notPermitted}`);
    if (!params.isPrivate) {
      throw new JoinRefused("UnableToReplayMessages: Replay is not allowed for public channels");
    }
    const wanted = parseReplay(params.replay);
    if (!wanted) return [];
    const messages = await replay(this.#context.sql, this.#topic, wanted).catch((error) => {
      this.#context.log(`replay of ${this.#topic} failed: ${sentence(error)}`);
      throw new JoinRefused("UnableToReplayMessages: Realtime was unable to replay messages");
    });
    this.#replayed = new Set(messages.map((message) => message.id));
    return messages;
  }

  // Hosted replays into the channel, not past it: v2 gets JSON text here, and bytes only for a binary message.
  #pushReplayed({ id, event, payload, binary }: StoredMessage): void {
    const meta = { id, replayed: true } as const;
    if (payload !== null) {
      this.#push("broadcast", { type: "broadcast", event, payload: JSON.parse(payload), meta });
      return;
    }
    const frame = this.framing.broadcast(this.wireTopic, { kind: "binary", event, body: binary!, meta });
    if (frame !== null) this.#socket.send(frame);
  }

  // Permission

  get #caller(): Caller {
    return { topic: this.#topic, claims: this.#claims!, headers: this.#socket.headers };
  }

  get #notPermitted(): string {
    return `You do not have permissions to read from this Channel topic: ${this.#topic}`;
  }

  /** Checks the token and sets the timer for the next check, at its expiry at the latest. */
  async #confirmToken(): Promise<void> {
    clearTimeout(this.#confirmTimer);
    this.#claims = await this.#context.tokens.verify(this.#token);
    if (this.#isClosed()) return;
    const leftMs = (this.#claims.exp - Math.floor(Date.now() / 1_000)) * 1_000;
    this.#confirmTimer = setTimeout(
      () =>
        this.#next(async () => {
          try {
            await this.#confirmToken();
          } catch (error) {
            if (!(error instanceof TokenError)) throw error;
            this.shutDown(error.message);
          }
        }),
      Math.min(this.#context.limits.confirmTokenMs, Math.max(leftMs, 0)),
    );
  }

  async #readPolicies(presence: boolean): Promise<Policies> {
    const read = await this.#context.authorizer.read(this.#caller, presence);
    return {
      readBroadcast: read.broadcast,
      readPresence: read.presence,
      writeBroadcast: null,
      writePresence: null,
    };
  }

  async #askWrite(): Promise<void> {
    const write = await this.#context.authorizer.write(this.#caller);
    this.#policies = { ...this.#policies, writeBroadcast: write.broadcast, writePresence: write.presence };
  }

  // Messages

  async #handle(message: Incoming): Promise<void> {
    switch (message.event) {
      case "broadcast":
        return await this.#broadcast(message);
      case "presence":
        return await this.#presence(message);
      case "access_token":
        return await this.#refreshToken(message.payload);
      default:
        this.#context.rates.messages.add();
        this.#context.log(`channel ${this.#topic}: unexpected ${message.event} from a client`);
    }
  }

  async #broadcast({ ref, payload }: Incoming): Promise<void> {
    if (this.#policies.writeBroadcast === null) {
      try {
        await this.#askWrite();
      } catch (error) {
        this.#context.log(`broadcast to ${this.#topic} not sent: ${sentence(error)}`);
        return;
      }
    }
    // A denied send is never answered, not even with ack: hosted keeps as silent.
    if (!this.#policies.writeBroadcast) return;
    this.#context.rates.messages.add();
    const { ack, self } = this.#params!;
    const message = toBroadcast(payload);
    if (message === null) {
      this.#context.log(`channel ${this.#topic}: a broadcast without a readable payload`);
      return;
    }
    if (!payloadFits(bytesOf(payload), this.#context.limits)) {
      if (ack) this.#reply(ref, "error", { error: "payload_size_exceeded" });
      return;
    }
    this.#context.hub.broadcast(this.#topic, this.#isPrivate, message, self ? undefined : this);
    if (ack) this.#reply(ref, "ok", {});
  }

  async #refreshToken(payload: unknown): Promise<void> {
    const token = isRecord(payload) ? payload.access_token : undefined;
    if (typeof token !== "string" || isApiKey(token) || token === this.#token) return;
    const before = this.#policies;
    this.#token = token;
    try {
      await this.#confirmToken();
      if (!this.#isPrivate) return;
      this.#policies = await this.#readPolicies(before.readPresence !== null);
    } catch (error) {
      throw new Shutdown(refreshRefused(error, this.#notPermitted));
    }
    if (!mayRead(this.#policies)) throw new Shutdown(this.#notPermitted);
    if (
      before.readBroadcast && !this.#policies.readBroadcast ||
      before.readPresence && !this.#policies.readPresence
    ) {
      throw new Shutdown(`You no longer have permission to read from this Channel topic: ${this.#topic}`);
    }
  }

  // Presence

  async #presence({ ref, payload }: Incoming): Promise<void> {
    const event = isRecord(payload) && typeof payload.event === "string" ? payload.event.toLowerCase() : null;
    if (event === null) return this.#reply(ref, "ok", {});
    if (!this.#presenceCalls.take()) throw new Shutdown("Client presence rate limit exceeded");
    if (event === "untrack") {
      this.#presencePayload = null;
      const diff = this.#context.presence.untrack(this.#presenceTopic, this);
      if (diff) this.#tellPresence(diff);
      return this.#reply(ref, "ok", {});
    }
    if (event !== "track" || !await this.#mayTrack()) return this.#reply(ref, "error", {});
    this.#track(ref, (payload as Record<string, unknown>).payload ?? {});
  }

  #track(ref: Ref, payload: unknown): void {
    const { rates, limits, presence } = this.#context;
    if (!isRecord(payload)) {
      return this.#reply(ref, "error", { reason: "Presence track payload must be a map" });
    }
    const text = JSON.stringify(payload);
    if (text !== this.#presencePayload) {
      if (!payloadFits(bytesOf(payload), limits)) throw new Shutdown("Track message size exceeded");
      if (rates.presence.exceeded) throw new Shutdown("Too many presence messages per second");
      rates.presence.add();
      this.#presencePayload = text;
      this.#tellPresence(presence.track(this.#presenceTopic, this, this.#params!.presenceKey, payload));
    }
    this.#reply(ref, "ok", {});
  }

  /** The presence policies are asked at the first track, the one for reading too where the join left it out. */
  async #mayTrack(): Promise<boolean> {
    if (this.#policies.writePresence === null) {
      try {
        if (this.#policies.readPresence === null) {
          const { presence } = await this.#context.authorizer.read(this.#caller, true);
          this.#policies = { ...this.#policies, readPresence: presence };
        }
        await this.#askWrite();
      } catch (error) {
        this.#context.log(`track on ${this.#topic} refused: ${sentence(error)}`);
        return false;
      }
    }
    return this.#policies.writePresence === true;
  }

  #tellPresence(diff: PresenceDiff): void {
    for (const member of this.#context.hub.members(this.#topic, this.#isPrivate)) {
      member.receivePresence(diff);
    }
  }

  // Sending

  #reply(ref: Ref, status: "ok" | "error", response: Record<string, unknown>): void {
    this.#socket.push({
      joinRef: this.#joinRef,
      ref,
      topic: this.wireTopic,
      event: "phx_reply",
      payload: { status, response },
    });
  }

  #push(event: string, payload: unknown): void {
    this.#socket.push({ joinRef: this.#joinRef, ref: null, topic: this.wireTopic, event, payload });
  }

  #system(extension: "system" | "postgres_changes", status: "ok" | "error", message: string): void {
    this.#push("system", { extension, status, message, channel: this.#topic });
  }

  #isClosed(): boolean {
    return this.#state === "closed";
  }
}

function mayRead(policies: Policies): boolean {
  return policies.readBroadcast || policies.readPresence === true;
}

function toBroadcast(payload: unknown): Broadcast | null {
  if (payload instanceof UserPush) {
    const { event, encoding, body } = payload;
    if (encoding === "binary") return { kind: "binary", event, body };
    const text = new TextDecoder().decode(body);
    try {
      // It will be spliced into frames to others, so it must be the JSON that it says it is.
      JSON.parse(text);
    } catch {
      return null;
    }
    return { kind: "json", event, body: text };
  }
  return isRecord(payload) ? { kind: "whole", payload } : null;
}

function bytesOf(payload: unknown): number {
  if (payload instanceof UserPush) return payload.body.length;
  return new TextEncoder().encode(JSON.stringify(payload)).length;
}

function joinRefused(error: unknown, topic: string): JoinRefused {
  if (error instanceof JoinRefused) return error;
  if (error instanceof ReplayParamsInvalid) {
    return new JoinRefused("UnableToReplayMessages: Replay params are not valid");
  }
  if (error instanceof TokenError) {
    switch (error.fault) {
      case "expired":
      case "missing_claims":
        return new JoinRefused(`InvalidJWTToken: ${error.message}`);
      case "malformed":
        return new JoinRefused(`MalformedJWT: ${error.message}`);
      case "signature":
        return new JoinRefused(`JwtSignatureError: ${error.message}`);
      case "signer":
        return new JoinRefused(`JwtSignerError: ${error.message}`);
    }
  }
  if (error instanceof AuthorizeError) {
    switch (error.fault) {
      case "policy":
        return new JoinRefused(
          `Unauthorized: You do not have permissions to read from this Channel topic: ${topic}`,
        );
      case "canceled":
        return new JoinRefused(`QueryCanceled: ${error.message}`);
      case "partition":
        return new JoinRefused(`MissingPartition: ${error.message}`);
      case "pool":
        return new JoinRefused(`IncreaseConnectionPool: ${error.message}`);
      case "database":
        return new JoinRefused(`UnableToConnectToProject: ${error.message}`);
    }
  }
  return new JoinRefused("Unknown Error on Channel");
}

function refreshRefused(error: unknown, notPermitted: string): string {
  if (error instanceof TokenError) return error.message;
  if (error instanceof AuthorizeError) {
    if (error.fault === "policy") return notPermitted;
    if (error.fault === "canceled") return "Query was cancelled, please try again";
    return "Realtime was unable to connect to the project database";
  }
  throw error;
}
