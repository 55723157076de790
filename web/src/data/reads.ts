/** Every query of the dashboard. Answers are typed rows; a refusal is thrown as an AppError. */
import type { PostgrestError, PostgrestResponse } from "@supabase/supabase-js";
import { toAppError } from "./appError.ts";
import type { Client } from "./client.ts";
import { allRows, type Page, pieces } from "./paging.ts";
import {
  ALERT_COLUMNS,
  type AlertRow,
  DEVICE_COLUMNS,
  type DeviceRow,
  HALT_COLUMNS,
  type HaltRow,
  HISTORY_COLUMNS,
  type HistoryRow,
  RELEASE_COLUMNS,
  type ReleaseRow,
  SETTINGS_COLUMNS,
  type SettingsRow,
  STATUS_COLUMNS,
  type StatusRow,
} from "./rows.ts";

/** Rows per request: PostgREST's own limit, above which it cuts silently. */
const PAGE_ROWS = 1000;
/** UUIDs in one address; 37 characters each stay far below what proxies accept. */
const IDS_IN_ONE_ADDRESS = 100;
/** Attempts shown of one device; older ones are in the SQL editor. */
export const HISTORY_ROWS = 50;

interface Answer {
  data: unknown;
  error: PostgrestError | null;
  status: number;
}

/** The data of an answer, or its refusal as an AppError. */
export function dataOf<Some extends Answer>(answer: Some): Extract<Some, { error: null }>["data"] {
  if (answer.error) {
    throw toAppError({ ...answer.error, message: answer.error.message, status: answer.status });
  }
  return answer.data;
}

function page<Row>(answer: PostgrestResponse<Row>): Page<Row> {
  return { rows: dataOf(answer), count: answer.count };
}

export function readDevices(client: Client): Promise<DeviceRow[]> {
  return allRows(async (after) => {
    const query = client.from("devices").select(DEVICE_COLUMNS, after === null ? { count: "exact" } : {})
      .order("id").limit(PAGE_ROWS);
    return page(await (after === null ? query : query.gt("id", after)));
  }, (row) => row.id);
}

export function readStatuses(client: Client): Promise<StatusRow[]> {
  return allRows(async (after) => {
    const query = client.from("device_status").select(
      STATUS_COLUMNS,
      after === null ? { count: "exact" } : {},
    )
      .order("device_id").limit(PAGE_ROWS);
    return page(await (after === null ? query : query.gt("device_id", after)));
  }, (row) => row.device_id);
}

export async function readSomeDevices(client: Client, ids: readonly string[]): Promise<DeviceRow[]> {
  const answers = pieces(ids, IDS_IN_ONE_ADDRESS).map(async (some) =>
    dataOf(await client.from("devices").select(DEVICE_COLUMNS).in("id", some))
  );
  return (await Promise.all(answers)).flat();
}

export async function readSomeStatuses(client: Client, ids: readonly string[]): Promise<StatusRow[]> {
  const answers = pieces(ids, IDS_IN_ONE_ADDRESS).map(async (some) =>
    dataOf(await client.from("device_status").select(STATUS_COLUMNS).in("device_id", some))
  );
  return (await Promise.all(answers)).flat();
}

/** All releases, the newest first. */
export async function readReleases(client: Client): Promise<ReleaseRow[]> {
  const rows = await allRows<ReleaseRow>(async (after) => {
    const query = client.from("releases").select(RELEASE_COLUMNS, after === null ? { count: "exact" } : {})
      .order("id").limit(PAGE_ROWS);
    return page(await (after === null ? query : query.gt("id", after)));
  }, (row) => row.id);
  return rows.sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at));
}

export async function readOpenHalts(client: Client): Promise<HaltRow[]> {
  return dataOf(
    await client.from("halts").select(HALT_COLUMNS).is("lifted_at", null).order("opened_at").limit(PAGE_ROWS),
  );
}

/** Alerts that policy has not resolved, the oldest first; a fleet in trouble has the first thousand shown. */
export async function readOpenAlerts(client: Client): Promise<AlertRow[]> {
  return dataOf(
    await client.from("alerts").select(ALERT_COLUMNS).is("resolved_at", null).order("opened_at")
      .limit(PAGE_ROWS),
  );
}

/** Counted by the database: a fleet in trouble has more alerts than one answer holds. */
export async function countUnacknowledged(client: Client): Promise<number> {
  const answer = await client.from("alerts").select("id", { count: "exact", head: true })
    .is("resolved_at", null).is("acknowledged_at", null);
  dataOf(answer);
  return answer.count ?? 0;
}

export async function readSettings(client: Client): Promise<SettingsRow> {
  return dataOf(await client.from("fleet_settings").select(SETTINGS_COLUMNS).limit(1).single());
}

/** All columns of one device and of its last report; null if there is none. */
export async function readDevice(client: Client, id: string) {
  return dataOf(await client.from("devices").select("*").eq("id", id).maybeSingle());
}

export async function readStatus(client: Client, id: string) {
  return dataOf(await client.from("device_status").select("*").eq("device_id", id).maybeSingle());
}

/** The newest attempts of one device, newest first. */
export async function readHistory(client: Client, id: string): Promise<HistoryRow[]> {
  return dataOf(
    await client.from("update_history").select(HISTORY_COLUMNS).eq("device_id", id)
      .order("started_at", { ascending: false }).limit(HISTORY_ROWS),
  );
}

/** What `explain_device` answers; parsed by `device/gates.ts`. */
export async function readExplanation(client: Client, id: string): Promise<unknown> {
  return dataOf(await client.rpc("explain_device", { device_id: id }));
}

/** The caller's own row of `operators`, or null: signed in, but not an operator of this fleet. */
export async function readOperator(client: Client, userId: string) {
  return dataOf(
    await client.from("operators").select("user_id,email,rank").eq("user_id", userId).maybeSingle(),
  );
}
