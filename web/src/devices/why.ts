/** "Why it is where it is": one sentence a row, the most decisive reason first. */
import type { DeviceRow, HaltRow, StatusRow } from "../data/rows.ts";
import { span } from "../format/time.ts";
import type { Known } from "./deviceView.ts";
import { checkInEvery, isHeld, type ShownState } from "./shownState.ts";

/** The sentence for a device in `shown`. */
export function why(
  device: DeviceRow,
  status: StatusRow | undefined,
  shown: ShownState,
  known: Known,
  now: number,
): string {
  if (shown === "pending") return "Waits for an operator to accept it";
  if (shown === "suspended") return "Suspended by an operator: it gets nothing until it is active again";
  if (shown === "retired") return "Retired";
  if (!status) return "Enrolled, but has not reported yet";
  if (shown === "offline") {
    const every = span(checkInEvery(device, status, known.settings) * 1000);
    return `Reports every ${every}, but has stopped. It said last: ${
      status.error ?? stateReason(status, known)
    }`;
  }
  if (status.error) return status.error;
  if (isHeld(device, now)) return sentences("Held", device.hold_reason);
  if (device.pinned_release) {
    return sentences(
      `Pinned to ${known.releases.get(device.pinned_release)?.version ?? "a release"}`,
      status.reason,
    );
  }
  const halt = status.state === "updating" ? undefined : known.halts.find((open) => isHaltedBy(device, open));
  if (halt) {
    return `Gets no update: ${
      halt.scope === "fleet" ? "the fleet" : `${halt.scope} ${halt.target}`
    } is halted`;
  }
  return stateReason(status, known);
}

/** Whether an open halt keeps this device from updates; halts of releases and rollouts are the database's to judge. */
export function isHaltedBy(device: DeviceRow, halt: Pick<HaltRow, "scope" | "target">): boolean {
  switch (halt.scope) {
    case "fleet":
      return true;
    case "segment":
    case "role":
    case "branch":
      return device[halt.scope] === halt.target;
    default:
      return false;
  }
}

function stateReason(status: StatusRow, { releases }: Known): string {
  if (status.reason) return status.reason;
  if (status.state === "healthy") {
    return status.current_release
      ? `Runs ${releases.get(status.current_release)?.version ?? "its release"}, all checks green`
      : "Waits for its first release";
  }
  return status.phase ? `In phase ${status.phase}` : "It gave no reason";
}

function sentences(first: string, second: string | null | undefined): string {
  return second ? `${first}: ${second}` : first;
}
