/**
 * What a person has typed and not saved, in the tab's own storage: it survives a reload, a new version of the page, and a
 * session that ends; it is for that person only.
 */

export interface Draft<Values> {
  /** The values that the person saw when the edit began; what is saved is compared with them. */
  before: Values;
  mine: Values;
}

const PREFIX = "draft:";

export function draftName(userId: string, name: string): string {
  return `${PREFIX}${userId}:${name}`;
}

export function readDraft<Values>(storage: Storage, name: string): Draft<Values> | null {
  const kept = storage.getItem(name);
  if (kept === null) return null;
  try {
    const draft: unknown = JSON.parse(kept);
    if (typeof draft !== "object" || draft === null || !("before" in draft) || !("mine" in draft)) {
      return null;
    }
    return draft as Draft<Values>;
  } catch {
    return null;
  }
}

/** A full or forbidden storage costs the survival, not the edit. */
export function writeDraft<Values>(storage: Storage, name: string, draft: Draft<Values> | null): void {
  try {
    if (draft === null) storage.removeItem(name);
    else storage.setItem(name, JSON.stringify(draft));
  } catch {
    // Kept in memory only.
  }
}
