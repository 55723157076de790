import type { DeviceRow, HaltRow, StatusRow } from "../data/rows.ts";
import { equal } from "../testing/assert.ts";
import { knownOf } from "./deviceView.ts";
import { device, halt, NOW, RELEASES, SETTINGS, status } from "../testing/exampleRows.ts";
import { shownState } from "./shownState.ts";
import { why } from "./why.ts";

const sentence = (
  fields: Partial<DeviceRow>,
  said: Partial<StatusRow> | null = {},
  halts: HaltRow[] = [],
) => {
  const row = device(fields);
  const report = said === null ? undefined : status(said);
  const known = knownOf({ releases: RELEASES, halts, settings: SETTINGS });
  return why(row, report, shownState(row, report, SETTINGS, NOW), known, NOW);
};

Deno.test("an error says more than a hold, a hold more than a pin, a pin more than nothing", () => {
  const pin = { pinned_release: RELEASES[0]?.id ?? null };
  const hold = { hold: true, hold_reason: "exhibition until Friday" };
  equal(
    sentence({ ...pin, ...hold }, { error: "web did not answer on 8080." }),
    "web did not answer on 8080.",
  );
  equal(sentence({ ...pin, ...hold }), "Held: exhibition until Friday");
  equal(sentence(pin), "Pinned to v1");
  equal(sentence({}), "Runs v1, all checks green");
});

Deno.test("what the device gives as its reason is shown", () => {
  equal(sentence({}, { state: "updating", reason: "fetching v2, 40 %" }), "fetching v2, 40 %");
  equal(sentence({}, { state: "updating", phase: "probation" }), "In phase probation");
});

Deno.test("an offline device says how often it should report and its last word", () => {
  equal(
    sentence({}, { reported_at: "2026-11-23T10:00:00+00:00", error: "disk full." }),
    "Reports every 15 min, but has stopped. It said last: disk full.",
  );
});

Deno.test("a device that an operator keeps out says so, whatever its last error was", () => {
  equal(sentence({ state: "pending" }, null), "Waits for an operator to accept it");
  equal(sentence({ state: "suspended" }, { error: "old" }).startsWith("Suspended by an operator"), true);
  equal(sentence({}, null), "Enrolled, but has not reported yet");
});

Deno.test("a hold that has ended by itself is no reason any more", () => {
  const held = { hold: true, hold_reason: "exhibition" };
  equal(sentence({ ...held, hold_until: "2026-11-23T12:00:01+00:00" }), "Held: exhibition");
  equal(sentence({ ...held, hold_until: "2026-11-23T12:00:00+00:00" }), "Runs v1, all checks green");
});

Deno.test("a healthy device says what it runs, and one without a release what it waits for", () => {
  equal(sentence({}), "Runs v1, all checks green");
  equal(sentence({}, { current_release: null }), "Waits for its first release");
});

Deno.test("a halt of the fleet, or of what the device belongs to, keeps it where it is", () => {
  equal(sentence({}, {}, [halt({})]), "Gets no update: the fleet is halted");
  equal(
    sentence({}, {}, [halt({ scope: "segment", target: "stable" })]),
    "Gets no update: segment stable is halted",
  );
  equal(sentence({}, {}, [halt({ scope: "segment", target: "canary" })]), "Runs v1, all checks green");
});

Deno.test("a device in the middle of an update finishes it whatever is halted", () => {
  equal(sentence({}, { state: "updating", reason: "fetching v2" }, [halt({})]), "fetching v2");
});
