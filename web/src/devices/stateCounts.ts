/** How many devices are in each state, as the database counts them. */
import type { OverviewRow } from "../data/rows.ts";
import type { ShownState } from "./shownState.ts";

/** How many devices are shown in each state, as the database counts them. */
export function stateCounts(overview: OverviewRow): Map<ShownState, number> {
  const counts: [ShownState, number | null][] = [
    ["safe_mode", overview.safe_mode],
    ["isolated", overview.isolated],
    ["degraded", overview.degraded],
    ["offline", overview.offline],
    ["rolled_back", overview.rolled_back],
    ["pending", overview.pending],
    ["updating", overview.updating],
    ["never_seen", overview.not_heard_yet],
    ["suspended", overview.suspended],
    ["healthy", overview.healthy],
    ["retired", overview.retired],
  ];
  return new Map(counts.flatMap(([state, count]) => (count ? [[state, count] as const] : [])));
}
