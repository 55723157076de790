import type { DeviceRow, HaltRow, StatusRow } from "../data/rows.ts";
import { sharedRows } from "../fleet/fleetData.ts";
import { equal } from "../testing/assert.ts";
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
  const shared = sharedRows({ releases: RELEASES, halts, settings: SETTINGS });
  return why(row, report, shownState(row, report, SETTINGS, NOW), shared, NOW);
};

Deno.test("an error comes before a hold, a hold before a pin, a pin before the state", () => {
  const pin = { pinned_release: RELEASES[0]?.id ?? null };
  const hold = { hold: true, hold_reason: "exhibition until Friday" };
  equal(
    sentence({ ...pin, ...hold }, { error: "web did not answer on 8080." }),
    "web did not answer on 8080.",
  );
  equal(sentence({ ...pin, ...hold }), "On hold: exhibition until Friday");
  equal(sentence(pin), "Pinned to v1");
  equal(sentence({}), "Running v1; all checks pass");
});

Deno.test("the reason that the device gives is shown", () => {
  equal(sentence({}, { state: "updating", reason: "fetching v2, 40 %" }), "fetching v2, 40 %");
  equal(sentence({}, { state: "updating", phase: "probation" }), "In phase probation");
});

Deno.test("an offline device shows for how long, how often it should report, and its last message", () => {
  equal(
    sentence({}, { reported_at: "2026-11-23T10:00:00+00:00", error: "disk full." }),
    "No report for 2 h (expected every 15 min). Last message: disk full.",
  );
});

Deno.test("a device that is not active says so, whatever its last error was", () => {
  equal(sentence({ state: "pending" }, null), "Waiting for an operator to accept it");
  equal(sentence({ state: "suspended" }, { error: "old" }).startsWith("Suspended by an operator"), true);
  equal(sentence({}, null), "Enrolled, but has not reported yet");
});

Deno.test("a hold that has ended is not a reason any more", () => {
  const held = { hold: true, hold_reason: "exhibition" };
  equal(sentence({ ...held, hold_until: "2026-11-23T12:00:01+00:00" }), "On hold: exhibition");
  equal(sentence({ ...held, hold_until: "2026-11-23T12:00:00+00:00" }), "Running v1; all checks pass");
});

Deno.test("a healthy device shows what it runs, one without a release what it waits for", () => {
  equal(sentence({}), "Running v1; all checks pass");
  equal(sentence({}, { current_release: null }), "Waiting for its first release");
});

Deno.test("a halt of the fleet, or of what the device belongs to, keeps it where it is", () => {
  equal(sentence({}, {}, [halt({})]), "No updates: the fleet is halted");
  equal(
    sentence({}, {}, [halt({ scope: "segment", target: "stable" })]),
    "No updates: segment stable is halted",
  );
  equal(sentence({}, {}, [halt({ scope: "segment", target: "canary" })]), "Running v1; all checks pass");
});

Deno.test("a device in the middle of an update finishes it whatever is halted", () => {
  equal(sentence({}, { state: "updating", reason: "fetching v2" }, [halt({})]), "fetching v2");
});
