/** The fleet as the page holds it: lists in the query cache, patched by broadcasts, read whole by polling. */
import { type QueryClient, queryOptions, useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { type DeviceView, deviceViews, type Fleet } from "../devices/deviceView.ts";
import { useLink } from "../realtime/RealtimeProvider.tsx";
import type { Batch } from "../realtime/changes.ts";
import { pollEvery } from "../realtime/connectionStatus.ts";
import { useNow } from "../components/useNow.ts";
import type { Client } from "../data/client.ts";
import { mergeNewest, replaceAll } from "../data/merge.ts";
import {
  readDevices,
  readOpenAlerts,
  readOpenHalts,
  readReleases,
  readSettings,
  readSomeDevices,
  readSomeStatuses,
  readStatuses,
} from "../data/reads.ts";
import type { DeviceRow, StatusRow } from "../data/rows.ts";
import { useClient } from "../auth/session.tsx";

/** Silence is derived in steps of this: a quarter of the shortest check-in interval. */
const SILENCE_STEP_MS = 5000;

const deviceKey = (row: DeviceRow) => row.id;
const deviceStamp = (row: DeviceRow) => row.updated_at;
const statusKey = (row: StatusRow) => row.device_id;
const statusStamp = (row: StatusRow) => row.reported_at;

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
  queryOptions({ queryKey: KEYS.halts, queryFn: () => readOpenHalts(client) });
export const alertsQuery = (client: Client) =>
  queryOptions({ queryKey: KEYS.alerts, queryFn: () => readOpenAlerts(client) });
export const settingsQuery = (client: Client) =>
  queryOptions({ queryKey: KEYS.settings, queryFn: () => readSettings(client) });

/** How often a query of this page is read again, milliseconds. */
export function usePollMs(): number {
  const { channel, pollSeconds } = useLink();
  return pollEvery(channel, pollSeconds) * 1000;
}

/** The rows of all lists; `fleet` is null until each was read once. */
export function useFleet(): { fleet: Fleet | null; error: Error | null } {
  const client = useClient();
  const refetchInterval = usePollMs();
  const devices = useQuery({ ...devicesQuery(client), refetchInterval });
  const statuses = useQuery({ ...statusesQuery(client), refetchInterval });
  const settings = useQuery({ ...settingsQuery(client), refetchInterval });
  const releases = useReleases();
  const halts = useOpenHalts();
  const fleet = useMemo<Fleet | null>(() => {
    if (!devices.data || !statuses.data || !releases.data || !halts.data || !settings.data) return null;
    return {
      devices: devices.data,
      statuses: statuses.data,
      releases: releases.data,
      halts: halts.data,
      settings: settings.data,
    };
  }, [devices.data, statuses.data, releases.data, halts.data, settings.data]);
  return { fleet, error: devices.error ?? statuses.error ?? releases.error ?? halts.error ?? settings.error };
}

/** Every device as it is shown now. */
export function useDeviceViews(fleet: Fleet | null): DeviceView[] {
  const now = useNow(SILENCE_STEP_MS);
  return useMemo(() => (fleet ? deviceViews(fleet, now) : []), [fleet, now]);
}

export function useReleases() {
  const client = useClient();
  return useQuery({ ...releasesQuery(client), refetchInterval: usePollMs() });
}

export function useOpenHalts() {
  const client = useClient();
  return useQuery({ ...haltsQuery(client), refetchInterval: usePollMs() });
}

export function useOpenAlerts() {
  const client = useClient();
  return useQuery({ ...alertsQuery(client), refetchInterval: usePollMs() });
}

/** Read again what a batch of broadcasts named, and put it into the lists. */
export async function applyBatch(client: Client, cache: QueryClient, batch: Batch): Promise<void> {
  const [devices, statuses] = await Promise.all([
    batch.devices.size ? readSomeDevices(client, [...batch.devices]) : [],
    batch.statuses.size ? readSomeStatuses(client, [...batch.statuses]) : [],
  ]);
  if (devices.length) {
    cache.setQueryData<DeviceRow[]>(
      KEYS.devices,
      (shown) => shown && mergeNewest(shown, devices, deviceKey, deviceStamp),
    );
  }
  if (statuses.length) {
    cache.setQueryData<StatusRow[]>(
      KEYS.statuses,
      (shown) => shown && mergeNewest(shown, statuses, statusKey, statusStamp),
    );
  }
  if (batch.deleted.size) {
    cache.setQueryData<DeviceRow[]>(
      KEYS.devices,
      (shown) => shown?.filter((row) => !batch.deleted.has(row.id)),
    );
  }
  const again = (queryKey: readonly unknown[]) => cache.invalidateQueries({ queryKey });
  const stale: Promise<void>[] = [];
  if (batch.whole.has("devices")) stale.push(again(KEYS.devices));
  if (batch.whole.has("device_status")) stale.push(again(KEYS.statuses));
  if (batch.whole.has("releases")) stale.push(again(KEYS.releases));
  if (batch.whole.has("halts")) stale.push(again(KEYS.halts));
  if (batch.whole.has("alerts")) stale.push(again(KEYS.alerts));
  // A halt, a release or a bulk change may concern the device whose page is open; else only the named ones do.
  if ([...batch.whole].some((table) => table !== "alerts")) stale.push(again(KEYS.allOfDevices));
  else {
    const named = new Set([...batch.devices, ...batch.statuses, ...batch.histories, ...batch.commands]);
    for (const id of named) stale.push(again(KEYS.device(id)));
  }
  await Promise.all(stale);
}
