/** Why a device is in its state: one sentence, from the most decisive reason. */
import type { DeviceRow, StatusRow } from "../data/rows.ts";
import type { SharedRows } from "../fleet/fleetData.ts";
import { span } from "../format/time.ts";
import { isHaltedBy } from "../halts/halts.ts";
import { isHeld, pollIntervalS, type ShownState } from "./shownState.ts";

/** The sentence for a device in `shown`. */
export function why(
  device: DeviceRow,
  status: StatusRow | undefined,
  shown: ShownState,
  shared: SharedRows,
  now: number,
): string {
  if (shown === "pending") return "Waiting for an operator to accept it";
  if (shown === "suspended") return "Suspended by an operator; no updates until it is reactivated";
  if (shown === "retired") return "Retired";
  if (!status) return "Enrolled, but has not reported yet";
  if (shown === "offline") {
    const silence = span(now - Date.parse(status.reported_at));
    const every = span(pollIntervalS(device, status, shared.settings) * 1000);
    return `No report for ${silence} (expected every ${every}). Last message: ${
      status.error ?? stateReason(status, shared)
    }`;
  }
  if (status.error) return status.error;
  if (isHeld(device, now)) return joined("On hold", device.hold_reason);
  if (device.pinned_release) {
    return joined(
      `Pinned to ${shared.releases.get(device.pinned_release)?.version ?? "a release"}`,
      status.reason,
    );
  }
  const halt = status.state === "updating"
    ? undefined
    : shared.halts.find((open) => isHaltedBy(device, open));
  if (halt) {
    return `No updates: ${halt.scope === "fleet" ? "the fleet" : `${halt.scope} ${halt.target}`} is halted`;
  }
  return stateReason(status, shared);
}

function stateReason(status: StatusRow, { releases }: SharedRows): string {
  if (status.reason) return status.reason;
  if (status.state === "healthy") {
    return status.current_release
      ? `Running ${releases.get(status.current_release)?.version ?? "its release"}; all checks pass`
      : "Waiting for its first release";
  }
  return status.phase ? `In phase ${status.phase.replaceAll("_", " ")}` : "No reason given";
}

function joined(first: string, second: string | null | undefined): string {
  return second ? `${first}: ${second}` : first;
}
