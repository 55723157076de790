import type { Sql } from "./deps.ts";
import { isRecord } from "./frames.ts";

/** Hosted's cap; a larger `limit` is cut to it. */
const MOST = 25;

export interface StoredMessage {
  id: string;
  topic: string;
  event: string;
  private: boolean;
  /** JSON text, null for a binary message. */
  payload: string | null;
  binary: Uint8Array | null;
}

export interface ReplayWanted {
  since: Date;
  limit: number;
}

export class ReplayParamsInvalid extends Error {}

/** `config.broadcast.replay` of a join: `since` in epoch milliseconds, `limit` 25 by default; null when absent. */
export function parseReplay(replay: unknown): ReplayWanted | null {
  if (replay === undefined || replay === null) return null;
  const { since, limit = MOST } = isRecord(replay) ? replay : {};
  if (!Number.isInteger(since) || !Number.isInteger(limit)) throw new ReplayParamsInvalid();
  const from = new Date(since as number);
  if (Number.isNaN(from.getTime())) throw new ReplayParamsInvalid();
  return { since: from, limit: Math.max(1, Math.min(limit as number, MOST)) };
}

/** The newest `limit` private broadcasts of `topic` since then, oldest first. */
export async function replay(
  sql: Sql,
  topic: string,
  { since, limit }: ReplayWanted,
): Promise<StoredMessage[]> {
  const rows = await sql<StoredMessage[]>`
    select id::text, topic, event, private, payload::text as payload, binary_payload as binary
    from realtime.messages
    where topic = ${topic} and private and extension = 'broadcast' and event is not null
      and (payload is not null or binary_payload is not null)
      and inserted_at >= ${since.toISOString()}::timestamptz at time zone 'UTC'
      -- Empty partitions of the days ahead need no look; a minute allows for a clock that jumped.
      and inserted_at < (now() at time zone 'UTC') + interval '1 minute'
    -- One transaction's messages share inserted_at; their place in the table tells them apart.
    order by inserted_at desc, tableoid desc, ctid desc
    limit ${limit}`;
  return rows.toReversed();
}
