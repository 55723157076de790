import { equal } from "../testing/assert.ts";
import { draftName, readDraft, writeDraft } from "./drafts.ts";

function storage(): Storage {
  const kept = new Map<string, string>();
  return {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, value: string) => void kept.set(key, value),
    removeItem: (key: string) => void kept.delete(key),
  } as unknown as Storage;
}

Deno.test("a draft is read back by whoever wrote it, and by nobody else", () => {
  const kept = storage();
  const draft = { before: { name: "a" }, mine: { name: "b" } };
  writeDraft(kept, draftName("ann", "devices:1"), draft);
  equal(readDraft(kept, draftName("ann", "devices:1")), draft);
  equal(readDraft(kept, draftName("bob", "devices:1")), null);
  writeDraft(kept, draftName("ann", "devices:1"), null);
  equal(readDraft(kept, draftName("ann", "devices:1")), null);
});

Deno.test("a storage that is full, or holds something else, costs the survival and not the edit", () => {
  const kept = storage();
  kept.setItem("draft:ann:x", "[1, 2");
  kept.setItem("draft:ann:y", "7");
  equal([readDraft(kept, "draft:ann:x"), readDraft(kept, "draft:ann:y")], [null, null]);
  const full = {
    ...kept,
    setItem: () => {
      throw new Error("QuotaExceededError");
    },
  } as unknown as Storage;
  writeDraft(full, "draft:ann:x", { before: {}, mine: {} });
});
