/** What policy wants looked at: in which order, in which words, and what an alert is about. */
import type { IconName } from "../components/Icon.tsx";
import type { Tone } from "../components/StatusText.tsx";
import type { AlertRow } from "../data/rows.ts";
import { counted } from "../format/size.ts";

type Severity = AlertRow["severity"];

export const SEVERITIES: Record<Severity, { word: string; tone: Tone; icon: IconName; urgency: number }> = {
  critical: { word: "Critical", tone: "bad", icon: "stop", urgency: 3 },
  warning: { word: "Warning", tone: "warn", icon: "triangle", urgency: 2 },
  info: { word: "Note", tone: "quiet", icon: "circle", urgency: 1 },
};

/** Open, and nobody has said that they look at it. */
export function isUnacknowledged(alert: Pick<AlertRow, "acknowledged_at">): boolean {
  return alert.acknowledged_at === null;
}

/** Those that wait for somebody first, then by severity, then the newest. */
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

/** "3 open, 1 that nobody looks at yet". */
export function tally(alerts: readonly AlertRow[]): string {
  const waiting = alerts.filter(isUnacknowledged).length;
  return `${alerts.length.toLocaleString("en")} open, ${
    waiting === 0 ? "somebody looks at each" : `${waiting.toLocaleString("en")} that nobody looks at yet`
  }`;
}

/** "Acknowledge 3 alerts": the button says what it does to how many. */
export function acknowledgeLabel(alerts: readonly AlertRow[]): string {
  return `Acknowledge ${counted(alerts.length, "alert")}`;
}
