import { isRecord } from "./frames.ts";

/** What a `phx_join` asks for. */
export interface JoinParams {
  accessToken: string | null;
  isPrivate: boolean;
  ack: boolean;
  self: boolean;
  replicationReady: boolean;
  /** As sent; `parseReplay` judges it once the channel may be read. */
  replay: unknown;
  presenceEnabled: boolean;
  presenceKey: string;
  postgresChanges: Record<string, unknown>[];
}

/** Reads a join leniently, as hosted Realtime does: what it cannot read counts as not asked for. */
export function parseJoin(payload: unknown): JoinParams {
  const params = record(payload);
  const config = record(params.config);
  const broadcast = record(config.broadcast);
  const presence = record(config.presence);
  const changes = Array.isArray(config.postgres_changes) ? config.postgres_changes : [];
  return {
    // `user_token` is an old name for it and wins when both are sent; an API key is no user's token.
    accessToken: token(params.user_token) ?? token(params.access_token),
    isPrivate: flag(config.private),
    ack: flag(broadcast.ack),
    self: flag(broadcast.self),
    replicationReady: flag(broadcast.replication_ready),
    replay: broadcast.replay,
    presenceEnabled: flag(presence.enabled),
    presenceKey: presence.key ? String(presence.key) : crypto.randomUUID(),
    postgresChanges: changes.filter(isRecord),
  };
}

export function isApiKey(token: string): boolean {
  return token.startsWith("sb_");
}

/** Each asked-for change with a stable number, which clients need to believe that they are subscribed. */
export function numbered(changes: Record<string, unknown>[]): Record<string, unknown>[] {
  return changes.map((change) => ({ ...change, id: hash(JSON.stringify(change)) }));
}

function token(value: unknown): string | null {
  return typeof value === "string" && !isApiKey(value) ? value : null;
}

function record(value: unknown): Record<string, unknown> {
  return isRecord(value) ? value : {};
}

function flag(value: unknown): boolean {
  return value === true || (typeof value === "string" && value.toLowerCase() === "true");
}

function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let at = 0; at < text.length; at++) value = Math.imul(value ^ text.charCodeAt(at), 0x01000193) >>> 0;
  return value % 134_217_728;
}
