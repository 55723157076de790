import { equal } from "../testing/assert.ts";
import { device, NOW, RELEASES, SETTINGS, status } from "../testing/exampleRows.ts";
import { countByState, deviceViews } from "./deviceView.ts";

const [v1, v2] = RELEASES;
const view = (said: Parameters<typeof status>[0], row: Parameters<typeof device>[0] = {}) =>
  deviceViews(
    { devices: [device(row)], statuses: [status(said)], releases: RELEASES, halts: [], settings: SETTINGS },
    NOW,
  )[0];

Deno.test("a target is shown only if it differs from what runs", () => {
  equal(view({ target_release: v2?.id ?? null })?.target, "v2");
  equal(view({ target_release: v1?.id ?? null })?.target, null);
  equal(view({})?.target, null);
});

Deno.test("a pin that the device has not seen yet is its target", () => {
  equal(view({}, { pinned_release: v2?.id ?? null })?.target, "v2");
});

Deno.test("a release that is not in the list is shown by the start of its id", () => {
  equal(view({ current_release: "99999999-0000-4000-8000-000000000009" })?.current, "99999999");
});

Deno.test("a device keeps its own status, and counts add up to the fleet", () => {
  const other = "0b4c8d2e-0000-4000-8000-000000000002";
  const views = deviceViews({
    devices: [device(), device({ id: other, name: "lobby-2" }), device({ id: "x", state: "pending" })],
    statuses: [status({ device_id: other, state: "degraded" }), status()],
    releases: RELEASES,
    halts: [],
    settings: SETTINGS,
  }, NOW);
  equal(views.map((it) => it.shown), ["healthy", "degraded", "pending"]);
  equal([...countByState(views)], [["healthy", 1], ["degraded", 1], ["pending", 1]]);
});
