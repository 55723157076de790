/** Every query of the dashboard. Answers are typed rows; a refusal is thrown as an AppError. */
import type { PostgrestError, PostgrestResponse } from "@supabase/supabase-js";
import { toAppError } from "./appError.ts";
import type { Client } from "./client.ts";
import type { Json } from "./generated/database.types.ts";
import { markedWithin } from "../format/plainText.ts";
import { allRows, type Page, pieces } from "./paging.ts";
import {
  ALERT_COLUMNS,
  type AlertRow,
  DEVICE_COLUMNS,
  type DeviceRow,
  type HaltRow,
  type HaltScope,
  HISTORY_COLUMNS,
  type HistoryRow,
  type LastDayRow,
  type OverviewRow,
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
/** Releases and rollouts to choose from; older ones are halted with fleetctl. */
const TARGETS_SHOWN = 100;
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

/** The data of an answer with texts that devices wrote: safe to show, and never written back. */
export function saidByDevices<Some extends Answer>(answer: Some): Extract<Some, { error: null }>["data"] {
  return markedWithin(dataOf(answer));
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
    const { rows, count } = page(await (after === null ? query : query.gt("device_id", after)));
    return { rows: markedWithin(rows), count };
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
    saidByDevices(await client.from("device_status").select(STATUS_COLUMNS).in("device_id", some))
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

/** Open halts in words, those that still stop something first. */
export async function readOpenHalts(client: Client): Promise<HaltRow[]> {
  return dataOf(await client.rpc("open_halts"));
}

/** What `halt_reach` answers; parsed by `halts/halts.ts`. */
export async function readHaltReach(
  client: Client,
  scope: HaltScope,
  target: string | null,
): Promise<unknown> {
  return dataOf(await client.rpc("halt_reach", { scope, target: target ?? undefined }));
}

export interface HaltTarget {
  /** What goes into `halts.target`. */
  id: string;
  name: string;
  /** The release that devices would be taken back from. */
  release?: string;
}

/** What could be halted in a scope: names, or the latest releases and rollouts. */
export async function readHaltTargets(client: Client, scope: HaltScope): Promise<HaltTarget[]> {
  switch (scope) {
    case "fleet":
      return [];
    case "segment":
      return (await readNames(client, "segments")).map((name) => ({ id: name, name }));
    case "role":
      return (await readNames(client, "device_roles")).map((name) => ({ id: name, name }));
    case "branch":
      return (await readNames(client, "branches")).map((name) => ({ id: name, name }));
    case "release": {
      const rows = dataOf(
        await client.from("releases").select("id,version,branch").order("created_at", { ascending: false })
          .limit(TARGETS_SHOWN),
      );
      return rows.map(({ id, version, branch }) => ({ id, name: `${version} (${branch})`, release: id }));
    }
    case "rollout": {
      const rows = dataOf(
        await client.from("rollouts").select("id,name,state,release_id").in("state", [
          "running",
          "paused",
          "completed",
        ]).order("started_at", { ascending: false }).limit(TARGETS_SHOWN),
      );
      return rows.map(({ id, name, state, release_id }) => ({
        id,
        name: `${name} (${state})`,
        release: release_id,
      }));
    }
  }
}

/** What `preview_going_back` answers. */
export async function readGoingBack(client: Client, releaseId: string): Promise<unknown> {
  return dataOf(await client.rpc("preview_going_back", { release_id: releaseId }));
}

export async function readOverview(client: Client): Promise<OverviewRow> {
  return dataOf(await client.from("fleet_overview").select("*").single());
}

export async function readLastDay(client: Client): Promise<LastDayRow> {
  return saidByDevices(await client.from("fleet_last_day").select("*").single());
}

/** What `open_rollouts` answers; parsed by `overview/rollouts.ts`. */
export async function readOpenRollouts(client: Client): Promise<unknown> {
  return dataOf(await client.rpc("open_rollouts"));
}

/** What `adoption_over_time` answers; parsed by `overview/adoption.ts`. */
export async function readAdoption(
  client: Client,
  days: number,
  role: string | null,
  branch: string | null,
): Promise<unknown> {
  return dataOf(
    await client.rpc("adoption_over_time", { days, role: role ?? undefined, branch: branch ?? undefined }),
  );
}

/** The names of a small lookup table. */
export async function readNames(
  client: Client,
  table: "device_roles" | "branches" | "segments" | "maintenance_windows",
): Promise<string[]> {
  const rows = dataOf(await client.from(table).select("name").order("name").limit(PAGE_ROWS));
  return rows.map(({ name }) => name);
}

/** Alerts that policy has not resolved: unacknowledged first, then the most severe, then the newest. */
export async function readOpenAlerts(client: Client, limit = PAGE_ROWS): Promise<AlertRow[]> {
  return saidByDevices(
    await client.from("alerts").select(ALERT_COLUMNS).is("resolved_at", null)
      .order("acknowledged_at", { nullsFirst: true }).order("severity", { ascending: false })
      .order("opened_at", { ascending: false }).limit(limit),
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
  return saidByDevices(await client.from("device_status").select("*").eq("device_id", id).maybeSingle());
}

/** The newest attempts of one device, newest first. */
export async function readHistory(client: Client, id: string): Promise<HistoryRow[]> {
  return saidByDevices(
    await client.from("update_history").select(HISTORY_COLUMNS).eq("device_id", id)
      .order("started_at", { ascending: false }).limit(HISTORY_ROWS),
  );
}

/** What `explain_device` answers; parsed by `device/gates.ts`. */
export async function readExplanation(client: Client, id: string): Promise<unknown> {
  return saidByDevices(await client.rpc("explain_device", { device_id: id }));
}

/** The caller's own row of `operators`, or null: signed in, but not an operator of this fleet. */
export async function readOperator(client: Client, userId: string) {
  return dataOf(
    await client.from("operators").select("user_id,email,rank").eq("user_id", userId).maybeSingle(),
  );
}

/** What `list_devices` answers; parsed by `devices/deviceList.ts`. */
export async function readDeviceList(
  client: Client,
  selector: object,
  sort: string,
  descending: boolean,
  skip: number,
  limit: number,
): Promise<unknown> {
  return saidByDevices(
    await client.rpc("list_devices", {
      selector: selector as Json,
      sort_by: sort,
      descending,
      skip,
      at_most: limit,
    }),
  );
}

/** What `change_devices` answers; parsed by `devices/bulk.ts`. The database refuses if they are not `expected` any more. */
export async function changeDevices(
  client: Client,
  selector: object,
  change: object,
  expected: number,
  reason: string | null,
  deviceIds: string[] | null,
): Promise<unknown> {
  return saidByDevices(
    await client.rpc("change_devices", {
      selector: selector as Json,
      change: change as Json,
      expected,
      reason: reason ?? undefined,
      device_ids: deviceIds ?? undefined,
    }),
  );
}

/** What `device_timeline` answers; parsed by `device/timeline.ts`. */
export async function readTimeline(client: Client, id: string, limit: number): Promise<unknown> {
  return saidByDevices(await client.rpc("device_timeline", { device_id: id, at_most: limit }));
}
