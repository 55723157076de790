import type { Broadcast, Frame, Framing } from "./frames.ts";
import type { PresenceDiff } from "./presence.ts";

/** A joined channel, as the others on its topic see it. */
export interface Member {
  readonly framing: Framing;
  receive(message: Broadcast, frame: Frame): void;
  receivePresence(diff: PresenceDiff): void;
}

/** The channels on each topic. A private and a public topic of the same name are two topics. */
export class Hub {
  #topics = new Map<string, Set<Member>>();

  constructor(private readonly log: (line: string) => void) {}

  join(topic: string, isPrivate: boolean, member: Member): void {
    const key = keyOf(topic, isPrivate);
    const members = this.#topics.get(key);
    if (members) members.add(member);
    else this.#topics.set(key, new Set([member]));
  }

  leave(topic: string, isPrivate: boolean, member: Member): void {
    const key = keyOf(topic, isPrivate);
    const members = this.#topics.get(key);
    if (members?.delete(member) && members.size === 0) this.#topics.delete(key);
  }

  members(topic: string, isPrivate: boolean): Iterable<Member> {
    return this.#topics.get(keyOf(topic, isPrivate)) ?? [];
  }

  /** True if any channel listens to `topic`, private or public. */
  wants(topic: string): boolean {
    return this.#topics.has(keyOf(topic, true)) || this.#topics.has(keyOf(topic, false));
  }

  /** Hands `message` to every channel on the topic but `except`, encoded once per framing. */
  broadcast(topic: string, isPrivate: boolean, message: Broadcast, except?: Member): void {
    const frames = new Map<Framing, Frame | null>();
    for (const member of this.members(topic, isPrivate)) {
      if (member === except) continue;
      let frame = frames.get(member.framing);
      if (frame === undefined) {
        frame = member.framing.broadcast(`realtime:${topic}`, message);
        frames.set(member.framing, frame);
        if (frame === null) {
          this.log(`dropped a broadcast that protocol ${member.framing.version} cannot carry`);
        }
      }
      if (frame !== null) member.receive(message, frame);
    }
  }
}

function keyOf(topic: string, isPrivate: boolean): string {
  return `${isPrivate ? "private" : "public"}:${topic}`;
}
