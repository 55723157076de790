/** The audit log is read in pages, newest first: a fleet of a few years has a million entries. */
import type { Client } from "../data/client.ts";
import { dataOf, saidByDevices } from "../data/reads.ts";
import { AUDIT_COLUMNS, type AuditRow, type Undone } from "./audit.ts";

/** Entries per page of the list. */
export const AUDIT_ROWS = 100;

export interface AuditFilter {
  /** Empty: all. */
  table: string;
  /** A part of an email address or of a database role. */
  actor: string;
  /** The id of a row. */
  row: string;
}

/** The newest entries that match; at most `pages` pages of them. */
export async function readAudit(client: Client, filter: AuditFilter, pages: number): Promise<AuditRow[]> {
  let query = client.from("audit_log").select(AUDIT_COLUMNS).order("id", { ascending: false })
    .limit(pages * AUDIT_ROWS);
  if (filter.table) query = query.eq("table_name", filter.table);
  if (filter.actor) query = query.ilike("actor", `%${filter.actor.replace(/[\\%_]/g, "\\$&")}%`);
  if (filter.row) query = query.eq("row_id", filter.row);
  return saidByDevices(await query);
}

/** Take back one entry, or all of one action; one answer per entry. */
export async function undo(client: Client, what: { entry: number } | { action: string }): Promise<Undone[]> {
  const named = "entry" in what ? { entries: [what.entry] } : { action: what.action };
  return dataOf(await client.rpc("undo_changes", named));
}
