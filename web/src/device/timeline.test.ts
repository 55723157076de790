import { equal } from "../testing/assert.ts";
import { parseTimeline } from "./timeline.ts";

const one = (what: string, facts: object) =>
  parseTimeline([{ what, id: "1", at: "2026-11-28T10:00:00Z", facts }])[0];

Deno.test("each kind of entry is a sentence, with who did it", () => {
  equal(
    one("attempt", {
      outcome: "rolled_back",
      from: "1.9.0",
      to: "1.10.0",
      seconds: 8.5,
      error: "web did not answer.",
    }),
    {
      key: "attempt 1",
      at: "2026-11-28T10:00:00Z",
      what: "attempt",
      tone: "warn",
      icon: "undo",
      by: null,
      sentence: "Rolled back after trying to update from 1.9.0 to 1.10.0, took 8.5 s.",
      detail: "web did not answer.",
    },
  );
  const edit = one("edit", {
    action: "update",
    by: "ann@fleet.example",
    before: { segment: "canary", labels: {} },
    after: { segment: "early", labels: { site: "rome" } },
  });
  equal([edit?.by, edit?.sentence], [
    "ann@fleet.example",
    "Changed segment from canary to early, labels from nothing to site=rome.",
  ]);
  equal(
    one("command", { kind: "check_drift", state: "queued" })?.sentence,
    "Command check drift waits for its next check-in.",
  );
  equal(one("command", { kind: "restart", state: "failed", result: '{"error": "no"}' })?.detail, "no");
  equal(
    one("halt", { scope: "segment", target: "early", reason: "smoke", lift_reason: "gone" })?.detail,
    "Lifted: gone",
  );
  equal(one("retry", { version: "v2" })?.sentence, "May try v2 again.");
});

Deno.test("an outcome, a state or a kind that is new does not break the list", () => {
  equal(one("attempt", { outcome: "melted", to: "v3", seconds: -5 })?.sentence, "Tried to update to v3.");
  equal(one("comet", {})?.sentence, "comet");
  equal(parseTimeline("nonsense"), []);
});
