/** What the list is narrowed to. It lives in the address, so that a view can be bookmarked and shared. */
import type { DeviceView } from "./deviceView.ts";
import { type ShownState, STATES } from "./shownState.ts";

export interface Filters {
  text: string;
  states: ShownState[];
  segment: string;
  role: string;
  branch: string;
}

export const NO_FILTERS: Filters = { text: "", states: [], segment: "", role: "", branch: "" };

/** Read the filters out of an address's query; unknown states are dropped. */
export function readFilters(query: URLSearchParams): Filters {
  const known = new Set<string>(STATES);
  return {
    text: query.get("q") ?? "",
    states: (query.get("state") ?? "").split(",").filter((state): state is ShownState => known.has(state)),
    segment: query.get("segment") ?? "",
    role: query.get("role") ?? "",
    branch: query.get("branch") ?? "",
  };
}

/** The query that `readFilters` reads back; what is not filtered is not in it. */
export function writeFilters(filters: Filters): URLSearchParams {
  const query = new URLSearchParams();
  if (filters.text) query.set("q", filters.text);
  if (filters.states.length) query.set("state", filters.states.join(","));
  for (const field of ["segment", "role", "branch"] as const) {
    if (filters[field]) query.set(field, filters[field]);
  }
  return query;
}

/** The devices that pass all filters: any of the states, and every word of the search text somewhere in the row. */
export function narrow(views: readonly DeviceView[], filters: Filters): DeviceView[] {
  const words = filters.text.toLowerCase().split(/\s+/).filter(Boolean);
  const states = new Set(filters.states);
  return views.filter((view) =>
    (states.size === 0 || states.has(view.shown)) &&
    (!filters.segment || view.segment === filters.segment) &&
    (!filters.role || view.role === filters.role) &&
    (!filters.branch || view.branch === filters.branch) &&
    words.every((word) => view.searched.includes(word))
  );
}

/** Switch one state on or off. */
export function toggleState(filters: Filters, state: ShownState): Filters {
  const states = filters.states.includes(state)
    ? filters.states.filter((kept) => kept !== state)
    : [...filters.states, state];
  return { ...filters, states };
}
