/** The feed's questions to the database. */
import type { Sql } from "./deps.ts";
import type { Snapshot } from "./marks.ts";
import type { StoredMessage } from "./replay.ts";

/** The current snapshot's bounds; `and` is more to select along with it. */
export async function snapshot(sql: Sql, and: unknown = sql``): Promise<Snapshot> {
  const [row] = await sql<{ xmin: string; xmax: string }[]>`
    select pg_snapshot_xmin(s)::text as xmin, pg_snapshot_xmax(s)::text as xmax ${and as never}
    from pg_current_snapshot() s`;
  return { xmin: BigInt(row.xmin), xmax: BigInt(row.xmax) };
}

export async function readBack(sql: Sql, ids: string[]): Promise<Map<string, StoredMessage>> {
  const rows = await sql<StoredMessage[]>`
    select id::text, topic, event, private, payload::text as payload, binary_payload as binary
    from realtime.messages
    where id = any(${ids}::uuid[]) and extension = 'broadcast' and event is not null
      and (payload is not null or binary_payload is not null)`;
  return new Map(rows.map((row) => [row.id, row]));
}

/**
 * Rows of transactions from `floor` on. `xmin` has 32 bits, a transaction id 64, so the upper half is put back:
 * no row is newer than the next transaction. Rows of one transaction keep their place in the table; the order
 * between transactions is that of commit if the database keeps it, otherwise that of their start.
 */
export async function idsFrom(sql: Sql, floor: bigint): Promise<string[]> {
  const [{ tracked }] = await sql<{ tracked: boolean }[]>`
    select current_setting('track_commit_timestamp')::boolean as tracked`;
  const committed = tracked ? sql`pg_xact_commit_timestamp(m.xmin)` : sql`null::timestamptz`;
  const rows = await sql<{ id: string }[]>`
    with at as (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next)
    select m.id::text
    from realtime.messages m, at,
      lateral (select at.next - at.next % 4294967296 + m.xmin::text::bigint as xid) near
    where m.extension = 'broadcast'
      and case when near.xid > at.next then near.xid - 4294967296 else near.xid end >= ${
    String(floor)
  }::bigint
    order by ${committed}, m.inserted_at, m.tableoid, m.ctid`;
  return rows.map((row) => row.id);
}
