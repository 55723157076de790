/** From rows to what one line of the list shows. */
import type { DeviceRow, StatusRow } from "../data/rows.ts";
import { type SharedRows, versionOf } from "../fleet/fleetData.ts";
import { isHeld, type ShownState, shownState } from "./shownState.ts";
import { why } from "./why.ts";

export interface DeviceView {
  id: string;
  name: string;
  shown: ShownState;
  role: string;
  segment: string;
  branch: string;
  /** The version it runs, or an abbreviated id if the release is not in the list. */
  current: string | null;
  /** The version it should run, if that differs from what it runs. */
  target: string | null;
  /** When it last reported (server time), or null. */
  contactAt: string | null;
  why: string;
  held: boolean;
  pinned: boolean;
}

/** One device as it is shown at `now`. */
export function deviceView(
  device: DeviceRow,
  status: StatusRow | undefined,
  shared: SharedRows,
  now: number,
): DeviceView {
  const shown = shownState(device, status, shared.settings, now);
  const reason = why(device, status, shown, shared, now);
  const current = versionOf(status?.current_release, shared.releases);
  const wanted = versionOf(status?.target_release ?? device.pinned_release, shared.releases);
  return {
    id: device.id,
    name: device.name,
    shown,
    role: device.role,
    segment: device.segment,
    branch: device.branch,
    current,
    target: wanted === current ? null : wanted,
    contactAt: status?.reported_at ?? null,
    why: reason,
    held: isHeld(device, now),
    pinned: device.pinned_release !== null,
  };
}
