import { equal } from "../testing/assert.ts";
import { ago, span, took } from "./time.ts";

const now = Date.parse("2026-11-23T12:00:00Z");
const before = (ms: number) => new Date(now - ms).toISOString();

Deno.test("age changes its unit exactly at the minute, the hour and two days", () => {
  const cases: [number, string][] = [
    [2_999, "just now"],
    [3_000, "3 s ago"],
    [59_999, "59 s ago"],
    [60_000, "1 min ago"],
    [3_599_999, "59 min ago"],
    [3_600_000, "1 h ago"],
    [172_799_999, "47 h ago"],
    [172_800_000, "2 d ago"],
  ];
  for (const [age, shown] of cases) equal(ago(before(age), now), shown);
});

Deno.test("a time from a clock that runs ahead is just now, no time is never, nonsense is unknown", () => {
  equal(ago(before(-60_000), now), "just now");
  equal(ago(null, now), "never");
  equal(ago("yesterday", now), "unknown");
});

Deno.test("a negative span is nothing, not a negative number", () => equal(span(-5), "0 s"));

Deno.test("what something took keeps two units at most", () => {
  equal(took(999), "999 ms");
  equal(took(1_000), "1.0 s");
  equal(took(200_000), "3 min 20 s");
  equal(took(180_000), "3 min");
  equal(took(7_500_000), "2 h 5 min");
});
