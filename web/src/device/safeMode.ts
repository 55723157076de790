/** What a device in safe mode says, and what ends it. */
import type { StatusRow } from "../data/rows.ts";

export interface SafeMode {
  /** Why it is there, as the device says it. */
  reason: string;
  /** The stable word, as in docs/usage/errors.md, where the device gave one. */
  kind: string | null;
  /** The release that keeps running beside the safe-mode page; null where nothing of ours runs. */
  beside: string | null;
}

/** Null where the device did not say last that it is in safe mode. */
export function safeMode(
  said: Pick<StatusRow, "state" | "reason" | "error" | "error_kind"> | null,
  current: string | null,
): SafeMode | null {
  if (said?.state !== "safe_mode") return null;
  return {
    // The reason tells more than the error: how to get in from outside, where that is open.
    reason: said.reason ?? said.error ?? "It gave no reason.",
    kind: said.error_kind,
    beside: current,
  };
}
