/** How rows compare, by column. Ties end in the name, so that live changes do not shuffle equal rows. */
import type { DeviceView } from "./deviceView.ts";
import { LOOKS } from "./shownState.ts";

export type SortColumn =
  | "name"
  | "shown"
  | "role"
  | "segment"
  | "branch"
  | "current"
  | "target"
  | "contactAt"
  | "why";

const natural = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Ascending order of two rows by one column: "device-9" before "device-10", the urgent state first, the never seen last. */
export function compare(column: SortColumn, a: DeviceView, b: DeviceView): number {
  return byColumn(column, a, b) || natural.compare(a.name, b.name);
}

function byColumn(column: SortColumn, a: DeviceView, b: DeviceView): number {
  if (column === "shown") return LOOKS[b.shown].urgency - LOOKS[a.shown].urgency;
  if (column === "contactAt") return instant(b.contactAt) - instant(a.contactAt);
  return natural.compare(a[column] ?? "\uffff", b[column] ?? "\uffff");
}

/** Never seen is the longest ago. */
function instant(at: string | null): number {
  return at ? Date.parse(at) : 0;
}
