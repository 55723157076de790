/** Open alerts: their order, their words, and what they are about. */
import { SEVERITIES } from "../components/severities.ts";
import type { AlertRow } from "../data/rows.ts";
import { counted } from "../format/size.ts";

/** Open, and not acknowledged by anyone yet. */
export function isUnacknowledged(alert: Pick<AlertRow, "acknowledged_at">): boolean {
  return alert.acknowledged_at === null;
}

/** Unacknowledged first, then by severity, then the newest. */
export function inOrder(alerts: readonly AlertRow[]): AlertRow[] {
  return [...alerts].sort((a, b) =>
    Number(isUnacknowledged(b)) - Number(isUnacknowledged(a)) ||
    SEVERITIES[b.severity].urgency - SEVERITIES[a.severity].urgency ||
    Date.parse(b.opened_at) - Date.parse(a.opened_at)
  );
}

/** "device offline", as a person reads the kind `device_offline`. */
export function kindWords(kind: string): string {
  return kind.replaceAll("_", " ");
}

/** "3 open, 1 unacknowledged". */
export function tally(alerts: readonly AlertRow[]): string {
  const unacknowledged = alerts.filter(isUnacknowledged).length;
  return `${alerts.length.toLocaleString("en")} open, ${
    unacknowledged === 0 ? "all acknowledged" : `${unacknowledged.toLocaleString("en")} unacknowledged`
  }`;
}

/** "Acknowledge 3 alerts": the button says how many it changes. */
export function acknowledgeLabel(alerts: readonly AlertRow[]): string {
  return `Acknowledge ${counted(alerts.length, "alert")}`;
}
