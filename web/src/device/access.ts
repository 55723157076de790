/** What a device's role declares to take of it beyond its own files, as its release says. */
import { fields, text } from "../data/json.ts";

export interface Access {
  /** The word in role.yaml: `host_network`, the name of a capability, `root`. */
  word: string;
  reason: string;
}

/** The declared access of one role; `root` first. Empty if the release does not say. */
export function declaredAccess(release: { access: unknown } | undefined, role: string): Access[] {
  return Object.entries(fields(fields(release?.access)[role]))
    .map(([word, reason]) => ({ word, reason: text(reason) ?? "" }))
    .sort((a, b) => Number(b.word === "root") - Number(a.word === "root") || a.word.localeCompare(b.word));
}
