import { equal } from "../testing/assert.ts";
import { device, NOW, RELEASES, SETTINGS, status } from "../testing/exampleRows.ts";
import { deviceViews } from "./deviceView.ts";
import { type Filters, narrow, NO_FILTERS, readFilters, toggleState, writeFilters } from "./filters.ts";

const views = deviceViews({
  devices: [
    device({ id: "a", name: "Lobby-1" }),
    device({ id: "b", name: "lobby-2", segment: "canary" }),
    device({ id: "c", name: "roof", role: "camera", state: "pending" }),
  ],
  statuses: [
    status({ device_id: "a" }),
    status({ device_id: "b", state: "degraded", error: "web did not answer" }),
  ],
  releases: RELEASES,
  halts: [],
  settings: SETTINGS,
}, NOW);
const names = (filters: Partial<Filters>) =>
  narrow(views, { ...NO_FILTERS, ...filters }).map((view) => view.name);

Deno.test("no filter shows everything", () => equal(names({}), ["Lobby-1", "lobby-2", "roof"]));

Deno.test("text is found in any case, every word must match, reasons count too", () => {
  equal(names({ text: "LOBBY" }), ["Lobby-1", "lobby-2"]);
  equal(names({ text: "lobby answer" }), ["lobby-2"]);
  equal(names({ text: "lobby roof" }), []);
});

Deno.test("states add up, the other filters narrow down", () => {
  equal(names({ states: ["degraded", "pending"] }), ["lobby-2", "roof"]);
  equal(names({ states: ["degraded", "pending"], role: "camera" }), ["roof"]);
  equal(names({ segment: "canary", branch: "staging" }), []);
});

Deno.test("an address gives back the filters that wrote it", () => {
  const filters: Filters = {
    text: "a b&c",
    states: ["offline", "safe_mode"],
    segment: "early",
    role: "beacon",
    branch: "main",
  };
  equal(readFilters(writeFilters(filters)), filters);
  equal(writeFilters(NO_FILTERS).toString(), "");
});

Deno.test("a state from an address that does not exist is dropped", () => {
  equal(readFilters(new URLSearchParams("state=healthy,nonsense")).states, ["healthy"]);
});

Deno.test("a state is switched on and off again", () => {
  const on = toggleState(NO_FILTERS, "offline");
  equal(on.states, ["offline"]);
  equal(toggleState(on, "offline").states, []);
});
