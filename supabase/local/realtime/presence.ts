import { randomBytes } from "node:crypto";

type Meta = Record<string, unknown> & { phx_ref: string };
export type PresenceList = Record<string, { metas: Meta[] }>;
export interface PresenceDiff {
  joins: PresenceList;
  leaves: PresenceList;
}

/** Who is present on each topic. One owner (a channel) holds at most one entry under one key. */
export class Presence<Owner> {
  #topics = new Map<string, Map<Owner, { key: string; meta: Meta }>>();

  /** Enters or updates the owner; the difference is what other members are told. */
  track(topic: string, owner: Owner, key: string, payload: Record<string, unknown>): PresenceDiff {
    const entries = this.#topics.get(topic) ?? new Map();
    this.#topics.set(topic, entries);
    const before = entries.get(owner);
    const meta: Meta = {
      ...payload,
      phx_ref: newRef(),
      ...(before ? { phx_ref_prev: before.meta.phx_ref } : {}),
    };
    entries.set(owner, { key, meta });
    return {
      joins: { [key]: { metas: [meta] } },
      leaves: before ? { [before.key]: { metas: [before.meta] } } : {},
    };
  }

  /** Null when the owner was not present. */
  untrack(topic: string, owner: Owner): PresenceDiff | null {
    const entries = this.#topics.get(topic);
    const entry = entries?.get(owner);
    if (!entries || !entry) return null;
    entries.delete(owner);
    if (entries.size === 0) this.#topics.delete(topic);
    return { joins: {}, leaves: { [entry.key]: { metas: [entry.meta] } } };
  }

  list(topic: string): PresenceList {
    const list: PresenceList = {};
    for (const { key, meta } of this.#topics.get(topic)?.values() ?? []) {
      (list[key] ??= { metas: [] }).metas.push(meta);
    }
    return list;
  }
}

function newRef(): string {
  return randomBytes(12).toString("base64url");
}
