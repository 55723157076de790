/** Puts what a batch of broadcasts named into the query cache. */
import type { QueryClient } from "@tanstack/react-query";
import type { Client } from "../data/client.ts";
import { mergeNewest } from "../data/merge.ts";
import { deviceKey, deviceStamp, KEYS, statusKey, statusStamp } from "../data/queries.ts";
import { readSomeDevices, readSomeStatuses } from "../data/reads.ts";
import type { DeviceRow, StatusRow } from "../data/rows.ts";
import type { Batch } from "./changes.ts";

/** Read the rows that a batch of broadcasts named, and put them into the lists. */
export async function applyBatch(client: Client, cache: QueryClient, batch: Batch): Promise<void> {
  // The whole lists are on few pages; without one of them nothing is read for them.
  const isShown = (queryKey: readonly unknown[]) =>
    cache.getQueryCache().find({ queryKey })?.isActive() ?? false;
  const [devices, statuses] = await Promise.all([
    batch.devices.size && isShown(KEYS.devices) ? readSomeDevices(client, [...batch.devices]) : [],
    batch.statuses.size && isShown(KEYS.statuses) ? readSomeStatuses(client, [...batch.statuses]) : [],
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
  const live = cache.invalidateQueries({ predicate: ({ meta }) => isAbout(meta, batch.tables) });
  const again = (queryKey: readonly unknown[]) => cache.invalidateQueries({ queryKey });
  const stale: Promise<void>[] = [live];
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

/** Whether a query says (`meta.tables`) that it reads one of the tables that changed. */
function isAbout(meta: Record<string, unknown> | undefined, changed: ReadonlySet<string>): boolean {
  return Array.isArray(meta?.tables) && meta.tables.some((table) => changed.has(table));
}
