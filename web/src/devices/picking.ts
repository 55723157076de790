/** Which rows of the list are selected one by one, or all that match. */

export interface Picking {
  isPicked: (id: string) => boolean;
  toggle: (id: string, name: string) => void;
}

/** Two things, and nothing between them. */
export type Selection = { kind: "rows"; names: ReadonlyMap<string, string> } | { kind: "all"; count: number };
