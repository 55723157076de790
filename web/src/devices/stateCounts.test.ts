import type { OverviewRow } from "../data/rows.ts";
import { equal } from "../testing/assert.ts";
import { STATES } from "./shownState.ts";
import { stateCounts } from "./stateCounts.ts";

Deno.test("every state has its count, and those without a device are left out", () => {
  const each = Object.fromEntries(
    STATES.map((state, index) => [state === "never_seen" ? "not_heard_yet" : state, index]),
  );
  const counts = stateCounts(each as unknown as OverviewRow);
  equal([...counts.keys()].sort(), STATES.slice(1).sort());
  equal(counts.get("never_seen"), STATES.indexOf("never_seen"));
});
