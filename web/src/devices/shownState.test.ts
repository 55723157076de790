import { equal } from "../testing/assert.ts";
import { device, NOW, SETTINGS, status } from "../testing/exampleRows.ts";
import { LOOKS, shownState, STATES } from "./shownState.ts";

const reported = (ms: number) => status({ reported_at: new Date(NOW - ms).toISOString() });

Deno.test("a device is offline only after it missed the set number of check-ins", () => {
  const limit = 3 * 900_000;
  equal(shownState(device(), reported(limit - 1), SETTINGS, NOW), "healthy");
  equal(shownState(device(), reported(limit), SETTINGS, NOW), "healthy");
  equal(shownState(device(), reported(limit + 1), SETTINGS, NOW), "offline");
});

Deno.test("a device with its own interval is judged by that one", () => {
  const quick = device({ poll_interval_s: 30 });
  equal(shownState(quick, reported(90_000), SETTINGS, NOW), "healthy");
  equal(shownState(quick, reported(90_001), SETTINGS, NOW), "offline");
});

Deno.test("an interval pinned in device.json counts most", () => {
  const calm = (ms: number) => ({ ...reported(ms), pinned_poll_interval_s: 3600 });
  const quick = device({ poll_interval_s: 30 });
  equal(shownState(quick, calm(3 * 3_600_000), SETTINGS, NOW), "healthy");
  equal(shownState(quick, calm(3 * 3_600_000 + 1), SETTINGS, NOW), "offline");
});

Deno.test("the lifecycle state counts more than the report", () => {
  for (const state of ["pending", "suspended", "retired"] as const) {
    equal(shownState(device({ state }), status(), SETTINGS, NOW), state);
  }
});

Deno.test("an active device without a report is `never_seen`, not healthy", () => {
  equal(shownState(device(), undefined, SETTINGS, NOW), "never_seen");
});

Deno.test("every state has its own word and its own icon, so color is never alone", () => {
  equal(new Set(STATES.map((state) => LOOKS[state].word)).size, STATES.length);
  equal(new Set(STATES.map((state) => LOOKS[state].icon)).size, STATES.length);
});

Deno.test("what needs attention comes first, the healthy and the retired last", () => {
  equal(STATES[0], "safe_mode");
  equal(STATES.slice(-2), ["healthy", "retired"]);
});
