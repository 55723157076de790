/**
 * What the list is narrowed to: one selector, whose short text is in the address, so that a view can be bookmarked and
 * shared. The search box, the counts and the choices all write into that selector, so they cannot contradict each other.
 */
import { parseSelector, type Selector, SelectorError, selectorText } from "../format/selector.ts";
import { type ShownState, STATES } from "./shownState.ts";

export interface View {
  selector: Selector;
  /** What is wrong with the selector in the address; then it takes everything. */
  problem: SelectorError | null;
  sort: SortColumn;
  descending: boolean;
}

export const SORT_COLUMNS = [
  "name",
  "shown",
  "role",
  "segment",
  "branch",
  "current",
  "target",
  "contact",
  "window",
  "hardware",
  "agent",
] as const;
export type SortColumn = typeof SORT_COLUMNS[number];

const FIRST: SortColumn = "shown";

/** Read an address's query; what it does not know is left out, and a selector that is wrong is said. */
export function readView(query: URLSearchParams): View {
  const sort = SORT_COLUMNS.find((column) => column === query.get("sort")?.replace(/^-/, ""));
  let selector: Selector = {};
  let problem: SelectorError | null = null;
  try {
    selector = parseSelector(query.get("select") ?? "");
  } catch (cause) {
    if (!(cause instanceof SelectorError)) throw cause;
    problem = cause;
  }
  return { selector, problem, sort: sort ?? FIRST, descending: query.get("sort")?.startsWith("-") ?? false };
}

/** The query that `readView` reads back; what is as usual is not in it. */
export function writeView({ selector, sort, descending }: Omit<View, "problem">): URLSearchParams {
  const query = new URLSearchParams();
  const written = selectorText(selector);
  if (written) query.set("select", written);
  if (sort !== FIRST || descending) query.set("sort", `${descending ? "-" : ""}${sort}`);
  return query;
}

/** The values of one key of a selector. */
export function valuesOf(selector: Selector, key: string): string[] {
  const given = selector[key];
  if (typeof given === "string") return [given];
  return Array.isArray(given) ? given : [];
}

/** The selector with these values of one key; none takes the key out. */
export function withValues(selector: Selector, key: string, values: readonly string[]): Selector {
  const { [key]: _old, ...rest } = selector;
  const [first, ...others] = values;
  if (first === undefined) return rest;
  return { ...rest, [key]: others.length === 0 ? first : [...values].sort() };
}

/** What is typed in the search box. */
export function searchedText(selector: Selector): string {
  return valuesOf(selector, "text")[0] ?? "";
}

export function withText(selector: Selector, text: string): Selector {
  // Spaces at its end are somebody who goes on typing.
  return withValues(selector, "text", text.trim() === "" ? [] : [text]);
}

export function chosenStates(selector: Selector): ShownState[] {
  const chosen = valuesOf(selector, "shown");
  return STATES.filter((state) => chosen.includes(state));
}

/** Switch one state on or off. */
export function toggleState(selector: Selector, state: ShownState): Selector {
  const chosen = chosenStates(selector);
  return withValues(
    selector,
    "shown",
    chosen.includes(state) ? chosen.filter((kept) => kept !== state) : [...chosen, state],
  );
}
