import type { LastDayRow } from "../data/rows.ts";
import { equal } from "../testing/assert.ts";
import { happenings } from "./lastDay.ts";

const NOTHING = {
  updates_succeeded: 0,
  updates_failed: 0,
  updates_rolled_back: 0,
  updates_skipped: 0,
  devices_that_tried: 0,
  devices_joined: 0,
  releases_added: 0,
  rollouts_started: 0,
  rollouts_ended: 0,
  halts_opened: 0,
  halts_lifted: 0,
  alerts_opened: 0,
  alerts_resolved: 0,
  edits: 0,
  people: 0,
} satisfies LastDayRow;

Deno.test("only what happened is told, with its number", () => {
  equal(happenings(NOTHING), []);
  equal(
    happenings({ ...NOTHING, updates_succeeded: 1312, halts_opened: 1, edits: 3, people: 1 }).map((
      { words },
    ) => words),
    [
      "1,312 updates succeeded",
      "1 halt opened",
      "3 changes by 1 person",
    ],
  );
  equal(happenings({ ...NOTHING, edits: 1 }).map(({ words }) => words), ["1 change"]);
});
