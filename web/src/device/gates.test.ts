import { equal } from "../testing/assert.ts";
import { actionSentence, gateAction, parseExplanation, VERDICTS } from "./gates.ts";

const answer = {
  action: "run",
  release: { id: "x", version: "v2", commit_sha: "a".repeat(40), branch: "main" },
  gates: [
    { gate: "device_state", verdict: "pass", detail: "active" },
    { gate: "fleet_halt", verdict: "wait", detail: "halted since 10:00: smoke" },
  ],
};

Deno.test("gates keep the order in which they were evaluated", () => {
  equal(parseExplanation(answer).gates.map((gate) => [gate.gate, gate.verdict]), [
    ["device_state", "pass"],
    ["fleet_halt", "wait"],
  ]);
});

Deno.test("the sentence names the first gate that blocks", () => {
  equal(actionSentence(parseExplanation(answer)), "Keeps its current release: halted since 10:00: smoke");
});

Deno.test("an update names its release", () => {
  equal(
    actionSentence(parseExplanation({ ...answer, action: "update", gates: [] })),
    "Will update (v2)",
  );
});

Deno.test("a verdict that this page does not know is shown as unknown, never as pass", () => {
  equal(parseExplanation({ gates: [{ gate: "x", verdict: "maybe" }] }).gates[0]?.verdict, "unknown");
});

Deno.test("an answer without gates breaks nothing", () => {
  for (const nothing of [null, "text", {}, { gates: "none" }]) equal(parseExplanation(nothing).gates, []);
});

Deno.test("what would have to change, and what may be fetched in advance, are read", () => {
  const { gates, prefetch } = parseExplanation({
    gates: [{
      gate: "hold",
      verdict: "wait",
      detail: "Held.",
      hint: "End the hold: fleetctl hold clear lobby.",
    }],
    prefetch: { version: "v3" },
  });
  equal([gates[0]?.hint, prefetch], ["End the hold: fleetctl hold clear lobby.", "v3"]);
  equal(parseExplanation(answer).gates[0]?.hint, null);
});

Deno.test("each verdict has its own word and icon", () => {
  equal(new Set(Object.values(VERDICTS).map(({ icon }) => icon)).size, 4);
});

Deno.test("a gate has a button only where a person can do something about it here", () => {
  const at = (gate: string, verdict: "pass" | "wait" | "refuse", detail = "") =>
    gateAction({ gate, verdict, detail, hint: null }, true)?.label ?? null;
  equal(at("hold", "wait"), "End hold");
  equal(at("hold", "pass"), null);
  equal(at("window", "wait", "Window nights opens at 22:30."), "Ignore window for 2 h");
  equal(at("known_bad", "refuse", "It rolled back from v2 on Sunday."), "Try again");
  equal(at("known_bad", "refuse", "v2 is known bad for devices with hardware_model Pi 3."), null);
  equal(at("device_state", "refuse", "The device is suspended."), "Reactivate");
  equal(at("device_state", "refuse", "The device is retired."), null);
  equal(at("slot", "wait"), null);
  equal(gateAction({ gate: "halt", verdict: "refuse", detail: "", hint: null }, false), null);
});
