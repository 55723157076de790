/** The one state a device is shown in: from its lifecycle state, its last report, and the age of that report. */
import type { DeviceRow, DeviceState, ReportState, SettingsRow, StatusRow } from "../data/rows.ts";

/** Reported states, lifecycle states, and two derived ones: `offline` and `never_seen`. */
export type ShownState = ReportState | Exclude<DeviceState, "active"> | "offline" | "never_seen";

/** How a state looks: never by color alone, so each has its own word and its own icon. */
export interface StateLook {
  word: string;
  tone: "good" | "busy" | "warn" | "bad" | "quiet";
  icon:
    | "check"
    | "arrows"
    | "triangle"
    | "undo"
    | "unplugged"
    | "shield"
    | "moon"
    | "hourglass"
    | "pause"
    | "box"
    | "circle";
  /** What it means, for the tooltip and the legend. */
  meaning: string;
  /** Higher needs attention sooner; the default order of the list. */
  urgency: number;
}

export const LOOKS: Record<ShownState, StateLook> = {
  safe_mode: {
    word: "Safe mode",
    tone: "bad",
    icon: "shield",
    meaning: "Runs only the safe-mode services, because no release stayed healthy",
    urgency: 100,
  },
  isolated: {
    word: "Isolated",
    tone: "bad",
    icon: "unplugged",
    meaning: "Was cut off from the control plane when it last reported",
    urgency: 90,
  },
  degraded: {
    word: "Degraded",
    tone: "bad",
    icon: "triangle",
    meaning: "Runs its release, but a health check is failing",
    urgency: 80,
  },
  offline: {
    word: "Offline",
    tone: "warn",
    icon: "moon",
    meaning: "Has missed several check-ins",
    urgency: 70,
  },
  rolled_back: {
    word: "Rolled back",
    tone: "warn",
    icon: "undo",
    meaning: "A release failed; the device returned to the previous one",
    urgency: 60,
  },
  pending: {
    word: "Pending",
    tone: "warn",
    icon: "hourglass",
    meaning: "Waiting for an operator to accept it",
    urgency: 50,
  },
  updating: {
    word: "Updating",
    tone: "busy",
    icon: "arrows",
    meaning: "Updating now",
    urgency: 40,
  },
  never_seen: {
    word: "Never seen",
    tone: "quiet",
    icon: "circle",
    meaning: "Enrolled, but has not reported yet",
    urgency: 30,
  },
  suspended: {
    word: "Suspended",
    tone: "quiet",
    icon: "pause",
    meaning: "Suspended by an operator",
    urgency: 20,
  },
  healthy: {
    word: "Healthy",
    tone: "good",
    icon: "check",
    meaning: "Runs its release; all checks pass",
    urgency: 10,
  },
  retired: {
    word: "Retired",
    tone: "quiet",
    icon: "box",
    meaning: "No longer part of the fleet",
    urgency: 0,
  },
};

/** Every state, most urgent first: the order of counts and filters. */
export const STATES = (Object.keys(LOOKS) as ShownState[]).sort((a, b) =>
  LOOKS[b].urgency - LOOKS[a].urgency
);

type DeviceFields = Pick<DeviceRow, "state" | "poll_interval_s">;
type StatusFields = Pick<StatusRow, "state" | "reported_at" | "pinned_poll_interval_s">;

/** The state a device is shown in at `now`. */
export function shownState(
  device: DeviceFields,
  status: StatusFields | undefined,
  settings: SettingsRow,
  now: number,
): ShownState {
  if (device.state !== "active") return device.state;
  if (!status) return "never_seen";
  return isOffline(device, status, settings, now) ? "offline" : status.state;
}

/** Whether the device has missed so many check-ins that it counts as offline. */
export function isOffline(
  device: DeviceFields,
  status: StatusFields,
  settings: SettingsRow,
  now: number,
): boolean {
  return now - Date.parse(status.reported_at) > offlineAfterMs(device, status, settings);
}

/** How long a device may go without reporting, milliseconds. */
export function offlineAfterMs(
  device: Pick<DeviceRow, "poll_interval_s">,
  status: Pick<StatusRow, "pinned_poll_interval_s"> | undefined,
  settings: SettingsRow,
): number {
  return pollIntervalS(device, status, settings) * settings.offline_after_intervals * 1000;
}

/** Seconds between check-ins: what device.json pins, otherwise the device's row, otherwise the fleet's default. */
export function pollIntervalS(
  device: Pick<DeviceRow, "poll_interval_s">,
  status: Pick<StatusRow, "pinned_poll_interval_s"> | undefined,
  settings: SettingsRow,
): number {
  return status?.pinned_poll_interval_s ?? device.poll_interval_s ?? settings.default_poll_interval_s;
}

/** Whether a hold is in force: one with an end time ends by itself. */
export function isHeld(device: Pick<DeviceRow, "hold" | "hold_until">, now: number): boolean {
  return device.hold && (device.hold_until === null || Date.parse(device.hold_until) > now);
}
