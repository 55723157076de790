import { equal } from "../testing/assert.ts";
import { device, NOW, RELEASES, SETTINGS, status } from "../testing/exampleRows.ts";
import { sharedRows } from "../fleet/fleetData.ts";
import { deviceView } from "./deviceView.ts";

const [v1, v2] = RELEASES;
const shared = sharedRows({ releases: RELEASES, halts: [], settings: SETTINGS });
const view = (said: Parameters<typeof status>[0], row: Parameters<typeof device>[0] = {}) =>
  deviceView(device(row), status(said), shared, NOW);

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
