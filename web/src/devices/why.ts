/** "Why it is where it is": one sentence a row, the most decisive reason first. */
import type { DeviceRow, ReleaseRow, SettingsRow, StatusRow } from "../data/rows.ts";
import { span } from "../shown/time.ts";
import { checkInEvery, isHeld, type ShownState } from "./shownState.ts";

/** The sentence for a device in `shown`. `release` finds a release by its id. */
export function why(
  device: DeviceRow,
  status: StatusRow | undefined,
  shown: ShownState,
  settings: SettingsRow,
  release: (id: string) => ReleaseRow | undefined,
  now: number,
): string {
  if (shown === "pending") return "Waits for an operator to accept it";
  if (shown === "suspended") return "Suspended by an operator: it gets nothing until it is active again";
  if (shown === "retired") return "Retired";
  if (!status) return "Enrolled, but has not reported yet";
  if (shown === "silent") {
    const every = span(checkInEvery(device, settings) * 1000);
    return `Reports every ${every}, but has stopped. It said last: ${status.error ?? stateReason(status)}`;
  }
  if (status.error) return status.error;
  if (isHeld(device, now)) return sentences("Held", device.hold_reason);
  if (device.pinned_release) {
    return sentences(`Pinned to ${release(device.pinned_release)?.version ?? "a release"}`, status.reason);
  }
  return stateReason(status);
}

function stateReason(status: StatusRow): string {
  if (status.reason) return status.reason;
  if (status.state === "updating" && status.phase) return `In phase ${status.phase}`;
  if (status.state === "healthy") return "Runs what it should";
  return status.phase ? `In phase ${status.phase}` : "It gave no reason";
}

function sentences(first: string, second: string | null | undefined): string {
  return second ? `${first}: ${second}` : first;
}
