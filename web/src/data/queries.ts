/** The lists as the query cache keeps them: their keys, and how each is read whole. */
import { queryOptions } from "@tanstack/react-query";
import type { Client } from "./client.ts";
import { replaceAll } from "./merge.ts";
import {
  countUnacknowledged,
  readDevices,
  readOpenAlerts,
  readOpenHalts,
  readReleases,
  readSettings,
  readStatuses,
} from "./reads.ts";
import type { DeviceRow, StatusRow } from "./rows.ts";

export const deviceKey = (row: DeviceRow) => row.id;
export const deviceStamp = (row: DeviceRow) => row.updated_at;
export const statusKey = (row: StatusRow) => row.device_id;
export const statusStamp = (row: StatusRow) => row.reported_at;

export const KEYS = {
  devices: ["devices"],
  statuses: ["statuses"],
  releases: ["releases"],
  halts: ["halts"],
  alerts: ["alerts"],
  settings: ["settings"],
  /** Everything that only one device's page reads. */
  device: (id: string) => ["device", id],
  allOfDevices: ["device"],
} as const;

export const devicesQuery = (client: Client) =>
  queryOptions({
    queryKey: KEYS.devices,
    queryFn: async ({ client: cache }) => {
      const list = await readDevices(client);
      return replaceAll(cache.getQueryData<DeviceRow[]>(KEYS.devices) ?? [], list, deviceKey, deviceStamp);
    },
  });

export const statusesQuery = (client: Client) =>
  queryOptions({
    queryKey: KEYS.statuses,
    queryFn: async ({ client: cache }) => {
      const list = await readStatuses(client);
      return replaceAll(cache.getQueryData<StatusRow[]>(KEYS.statuses) ?? [], list, statusKey, statusStamp);
    },
  });

export const releasesQuery = (client: Client) =>
  queryOptions({ queryKey: KEYS.releases, queryFn: () => readReleases(client) });
export const haltsQuery = (client: Client) =>
  queryOptions({
    queryKey: KEYS.halts,
    queryFn: () => readOpenHalts(client),
    meta: { tables: ["halts", "rollouts", "releases"] },
  });
export const alertsQuery = (client: Client) =>
  queryOptions({ queryKey: KEYS.alerts, queryFn: () => readOpenAlerts(client) });
export const unacknowledgedQuery = (client: Client) =>
  queryOptions({
    queryKey: ["unacknowledged"],
    queryFn: () => countUnacknowledged(client),
    meta: { tables: ["alerts"] },
  });
export const settingsQuery = (client: Client) =>
  queryOptions({
    queryKey: KEYS.settings,
    queryFn: () => readSettings(client),
    meta: { tables: ["fleet_settings"] },
  });
