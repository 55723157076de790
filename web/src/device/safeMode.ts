/** What a device in safe mode reports. */
import type { StatusRow } from "../data/rows.ts";

export interface SafeMode {
  /** Why it is in safe mode, as the device reports it. */
  reason: string;
  /** The error kind, as in docs/usage/errors.md, if the device gave one. */
  kind: string | null;
  /** The release that keeps running next to the safe-mode page; null if nothing of ours runs. */
  beside: string | null;
}

/** Null unless the last report says that the device is in safe mode. */
export function safeMode(
  report: Pick<StatusRow, "state" | "reason" | "error" | "error_kind"> | null,
  current: string | null,
): SafeMode | null {
  if (report?.state !== "safe_mode") return null;
  return {
    // The reason says more than the error: also how to reach the device from outside, if that is possible.
    reason: report.reason ?? report.error ?? "No reason given.",
    kind: report.error_kind,
    beside: current,
  };
}
