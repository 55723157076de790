import { equal } from "../testing/assert.ts";
import { mergeNewest, replaceAll } from "./merge.ts";

interface Row {
  id: string;
  at: string;
  word: string;
}
const row = (id: string, second: string, word: string): Row => ({
  id,
  at: `2026-11-23T12:00:${second}+00:00`,
  word,
});
const key = (it: Row) => it.id;
const stamp = (it: Row) => it.at;

Deno.test("of two answers about a row the later one is kept, whichever arrives last", () => {
  const old = [row("a", "01.5", "old")];
  const fresh = [row("a", "02", "new")];
  equal(mergeNewest(old, fresh, key, stamp), fresh);
  equal(mergeNewest(fresh, old, key, stamp), fresh);
});

Deno.test("stamps that differ by microseconds are told apart", () => {
  const old = [row("a", "01.123456", "old")];
  const fresh = [row("a", "01.123457", "new")];
  equal(mergeNewest(old, fresh, key, stamp), fresh);
  equal(mergeNewest(fresh, old, key, stamp), fresh);
});

Deno.test("a changed row leaves the others in place, an unknown one is added", () => {
  const shown = [row("a", "01", "a"), row("b", "01", "b")];
  const merged = mergeNewest(shown, [row("b", "02", "B"), row("c", "01", "c")], key, stamp);
  equal(merged.map((it) => it.word), ["a", "B", "c"]);
});

Deno.test("a whole list drops rows that are gone, and keeps what changed after it was read", () => {
  const shown = [row("gone", "01", "gone"), row("b", "09", "live"), row("came", "10", "came")];
  const list = [row("b", "02", "slow answer"), row("c", "02", "c")];
  equal(replaceAll(shown, list, key, stamp).map((it) => it.word), ["live", "c", "came"]);
});
