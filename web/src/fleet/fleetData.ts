/** The rows of the whole fleet, and how a device's row finds what it names. */
import type { DeviceRow, HaltRow, ReleaseRow, SettingsRow, StatusRow } from "../data/rows.ts";

/** All lists, as read. */
export interface FleetData {
  devices: readonly DeviceRow[];
  statuses: readonly StatusRow[];
  releases: readonly ReleaseRow[];
  /** Open ones only. */
  halts: readonly HaltRow[];
  settings: SettingsRow;
}

/** The rows that concern more than one device, ready to look up. */
export interface SharedRows {
  releases: ReadonlyMap<string, ReleaseRow>;
  halts: readonly HaltRow[];
  settings: SettingsRow;
}

export function sharedRows(
  { releases, halts, settings }: Omit<FleetData, "devices" | "statuses">,
): SharedRows {
  return { releases: new Map(releases.map((release) => [release.id, release])), halts, settings };
}

/** The version people know a release by. */
export function versionOf(
  id: string | null | undefined,
  releases: ReadonlyMap<string, ReleaseRow>,
): string | null {
  if (!id) return null;
  return releases.get(id)?.version ?? id.slice(0, 8);
}
