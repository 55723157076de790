import { equal } from "../testing/assert.ts";
import { device } from "../testing/exampleRows.ts";
import { haltCause, haltEffect, haltTitle, isHaltedBy, parseReach, stopLabel } from "./halts.ts";

Deno.test("the stop says how many devices it affects, and in which segments", () => {
  const reach = parseReach({
    devices: 3,
    updating: 1,
    by_segment: [{ segment: "canary", devices: 1 }, { segment: "stable", devices: 2 }],
  });
  equal(reach, { devices: 3, updating: 1, bySegment: "1 in canary, 2 in stable" });
  equal(stopLabel(reach), "Stop updates on 3 devices");
  equal(stopLabel({ devices: 1 }), "Stop updates on 1 device");
  equal(parseReach("nonsense"), { devices: 0, updating: 0, bySegment: "" });
});

Deno.test("a halt names what it stops, who or which rule opened it, and never an id", () => {
  equal(
    haltTitle({ subject: "Rollout nights of release 2.1.0" }),
    "Rollout nights of release 2.1.0 is halted",
  );
  equal(haltCause({ cause: "operator", opened_by: "ann@example.com" }), "opened by ann@example.com");
  equal(haltCause({ cause: "operator", opened_by: null }), "opened by an operator");
  equal(
    haltCause({ cause: "consecutive_failures", opened_by: null }),
    "opened automatically because several updates failed in a row",
  );
  equal(haltCause({ cause: "new_rule", opened_by: null }), "opened automatically (new rule)");
});

Deno.test("the effect of a halt counts devices, and says when it is over", () => {
  const halt = { scope: "release" as const, devices: 4, going_back: 0, is_past: false };
  equal(haltEffect({ ...halt, scope: "fleet", devices: 1 }), "1 device gets no updates");
  equal(haltEffect(halt), "4 devices get no updates from it");
  equal(
    haltEffect({ ...halt, going_back: 1 }),
    "4 devices get no updates from it; 1 device still runs it and goes back",
  );
  equal(
    haltEffect({ ...halt, scope: "rollout", is_past: true }),
    "That rollout is over, so this halt stops nothing any more.",
  );
});

Deno.test("a halt of a segment concerns its devices only", () => {
  const canary = device({ segment: "canary" });
  equal(isHaltedBy(canary, { scope: "segment", target: "canary" }), true);
  equal(isHaltedBy(canary, { scope: "segment", target: "stable" }), false);
  equal(isHaltedBy(canary, { scope: "fleet", target: null }), true);
  equal(isHaltedBy(canary, { scope: "release", target: "canary" }), false);
});
