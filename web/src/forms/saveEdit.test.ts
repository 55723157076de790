import type { Client } from "../data/client.ts";
import { equal, rejects } from "../testing/assert.ts";
import { changedMeanwhile, conflictsOf, saveEdit } from "./saveEdit.ts";

/** A table with one row, which compares and sets as PostgREST does. */
function database(row: Record<string, unknown> | null, mayWrite = true) {
  const asked: string[] = [];
  const client = {
    from: () => ({
      update(change: Record<string, unknown>) {
        const filters: [string, string, unknown][] = [];
        const query = {
          eq: () => query,
          filter(field: string, operator: string, value: unknown) {
            filters.push([field, operator, value]);
            asked.push(`${field}.${operator}.${value}`);
            return query;
          },
          select: () => {
            const old = (value: unknown) =>
              typeof value === "object" && value !== null ? JSON.stringify(value) : value;
            const meets = row && mayWrite &&
              filters.every(([field, , value]) => old(row?.[field] ?? null) === value);
            if (meets) row = { ...row, ...change };
            return Promise.resolve({ data: meets ? [row] : [], error: null, status: 200 });
          },
        };
        return query;
      },
      select: () => ({
        eq: () => ({ maybeSingle: () => Promise.resolve({ data: row, error: null, status: 200 }) }),
      }),
    }),
  };
  return { client: client as unknown as Client, asked, row: () => row };
}

const BEFORE = { name: "lobby", segment: "canary", labels: { site: "rome" } };

Deno.test("only edited fields are saved, and their old values travel in the filter", async () => {
  const db = database({ ...BEFORE, segment: "stable" });
  await saveEdit(db.client, "devices", "d", BEFORE, { ...BEFORE, labels: { site: "milan" } });
  equal(db.asked, ['labels.eq.{"site":"rome"}']);
  equal(db.row(), { ...BEFORE, segment: "stable", labels: { site: "milan" } });
});

Deno.test("a field that somebody else changed refuses the edit with both values", async () => {
  const db = database({ ...BEFORE, name: "hall" });
  const edit = saveEdit(db.client, "devices", "d", BEFORE, { ...BEFORE, name: "foyer", segment: "early" });
  await rejects(edit, {
    kind: "edited_meanwhile",
    conflicts: [{ field: "name", before: "lobby", mine: "foyer", theirs: "hall" }],
  });
  equal(db.row(), { ...BEFORE, name: "hall" });
});

Deno.test("an edit that row-level security leaves without a row is refused in words", async () => {
  const db = database(BEFORE, false);
  await rejects(saveEdit(db.client, "devices", "d", BEFORE, { ...BEFORE, name: "foyer" }), {
    kind: "rank_too_low",
  });
});

Deno.test("a row that is gone says so, and an edit of nothing asks nothing", async () => {
  const db = database(null);
  await rejects(saveEdit(db.client, "devices", "d", BEFORE, { ...BEFORE, name: "foyer" }), {
    kind: "row_gone",
  });
  equal(await saveEdit(db.client, "devices", "d", BEFORE, { ...BEFORE, labels: { site: "rome" } }), null);
  equal(db.asked, ["name.eq.lobby"]);
});

Deno.test("a field that both set to the same value is no conflict, nor is one that only the other changed", async () => {
  const db = database({ ...BEFORE, name: "foyer" });
  await saveEdit(db.client, "devices", "d", BEFORE, { ...BEFORE, name: "foyer", segment: "early" });
  equal(db.row(), { ...BEFORE, name: "foyer", segment: "early" });
  equal(conflictsOf({ a: 1, b: 2 }, { a: 5, b: 2 }, { a: 1, b: 9 }), []);
  equal(changedMeanwhile({ a: 1, b: { x: 1, y: 2 } }, { a: 1, b: { y: 2, x: 1 }, updated_at: "now" }), []);
});
