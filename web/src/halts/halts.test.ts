import { equal } from "../testing/assert.ts";
import { device, RELEASES } from "../testing/exampleRows.ts";
import { haltedDevices, haltTitle, stopFacts, stopLabel } from "./halts.ts";

const devices = [
  device({ segment: "canary" }),
  device({ segment: "stable" }),
  device({ segment: "stable", role: "camera" }),
  device({ segment: "stable", state: "suspended" }),
];

Deno.test("the stop counts active devices only, by segment", () => {
  const facts = stopFacts(devices, 1);
  equal(facts, { active: 3, bySegment: "1 in canary, 2 in stable", updating: 1 });
  equal(stopLabel(facts), "Stop updates on 3 devices");
  equal(stopLabel(stopFacts(devices.slice(0, 1), 0)), "Stop updates on 1 device");
});

Deno.test("a halt counts the active devices of its scope", () => {
  equal(haltedDevices({ scope: "fleet", target: null }, devices), 3);
  equal(haltedDevices({ scope: "segment", target: "stable" }, devices), 2);
  equal(haltedDevices({ scope: "role", target: "camera" }, devices), 1);
  equal(haltedDevices({ scope: "branch", target: "staging" }, devices), 0);
  equal(haltedDevices({ scope: "rollout", target: "x" }, devices), null);
});

Deno.test("a halt names what it stops, a release by its version", () => {
  equal(haltTitle({ scope: "fleet", target: null }, RELEASES), "The whole fleet is halted");
  equal(haltTitle({ scope: "segment", target: "canary" }, RELEASES), "Segment canary is halted");
  equal(haltTitle({ scope: "release", target: RELEASES[1]?.id ?? "" }, RELEASES), "Release v2 is halted");
});
