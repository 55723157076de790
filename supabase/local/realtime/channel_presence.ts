/** One channel's own entry in the presence list of its topic. */
import { bytesOf } from "./broadcast.ts";
import type { Context } from "./context.ts";
import { isRecord } from "./frames.ts";
import type { Member } from "./hub.ts";
import { CallWindow, payloadFits } from "./limits.ts";
import type { PresenceDiff, PresenceList } from "./presence.ts";
import { Shutdown } from "./refusals.ts";

/** What a client's call is answered with. */
export interface Reply {
  status: "ok" | "error";
  response: Record<string, unknown>;
}

const OK: Reply = { status: "ok", response: {} };

export class ChannelPresence {
  #calls: CallWindow;
  #isPrivate = false;
  #key = "";
  /** What is tracked now, as JSON: the same payload again changes nothing. */
  #tracked: string | null = null;

  constructor(
    private readonly context: Context,
    private readonly topic: string,
    private readonly owner: Member,
  ) {
    const { presenceCallsPerWindow, presenceWindowMs } = context.limits;
    this.#calls = new CallWindow(presenceCallsPerWindow, presenceWindowMs);
  }

  /** What the join asked for. */
  configure(isPrivate: boolean, key: string): void {
    this.#isPrivate = isPrivate;
    this.#key = key;
  }

  list(): PresenceList {
    return this.context.presence.list(this.#presenceTopic);
  }

  /** A client's `presence` message; raises Shutdown if it exceeds a limit. */
  async handle(payload: unknown, mayTrack: () => Promise<boolean>): Promise<Reply> {
    const event = isRecord(payload) && typeof payload.event === "string" ? payload.event.toLowerCase() : null;
    if (event === null) return OK;
    if (!this.#calls.take()) throw new Shutdown("Client presence rate limit exceeded");
    if (event === "untrack") {
      this.#tracked = null;
      this.untrack();
      return OK;
    }
    if (event !== "track" || !await mayTrack()) return { status: "error", response: {} };
    return this.#track((payload as Record<string, unknown>).payload ?? {});
  }

  /** Removes the entry, if there is one, and tells the others on the topic. */
  untrack(): void {
    const diff = this.context.presence.untrack(this.#presenceTopic, this.owner);
    if (diff) this.#tell(diff);
  }

  #track(payload: unknown): Reply {
    const { rates, limits, presence } = this.context;
    if (!isRecord(payload)) {
      return { status: "error", response: { reason: "Presence track payload must be a map" } };
    }
    const text = JSON.stringify(payload);
    if (text !== this.#tracked) {
      if (!payloadFits(bytesOf(payload), limits)) throw new Shutdown("Track message size exceeded");
      if (rates.presence.exceeded) throw new Shutdown("Too many presence messages per second");
      rates.presence.add();
      this.#tracked = text;
      this.#tell(presence.track(this.#presenceTopic, this.owner, this.#key, payload));
    }
    return OK;
  }

  #tell(diff: PresenceDiff): void {
    for (const member of this.context.hub.members(this.topic, this.#isPrivate)) {
      member.receivePresence(diff);
    }
  }

  /** A private and a public topic of the same name have nothing to do with each other. */
  get #presenceTopic(): string {
    return `${this.#isPrivate ? "private" : "public"}:${this.topic}`;
  }
}
