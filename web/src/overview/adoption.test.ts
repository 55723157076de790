import { equal } from "../testing/assert.ts";
import { OTHERS, parseAdoption } from "./adoption.ts";
import { chartOf } from "./chart.ts";

const FRAME = { width: 600, height: 200, top: 10, right: 90, bottom: 20, left: 40 };

Deno.test("an answer becomes one series a release, each with a number for every day", () => {
  const adoption = parseAdoption({
    days: ["2026-11-26", "2026-11-27", "2026-11-28"],
    releases: [{ version: "1.9.0", branch: "main", devices: [4, 4, 1] }, {
      version: "1.10.0",
      devices: [0, 1],
    }],
    others: [0, 0, 2],
  });
  equal(adoption.series.map(({ name, devices }) => [name, devices]), [
    [OTHERS, [0, 0, 2]],
    ["1.9.0", [4, 4, 1]],
    ["1.10.0", [0, 1, 0]],
  ]);
});

Deno.test("bands lie on each other and stay in the frame", () => {
  const chart = chartOf(
    {
      days: ["2026-11-26", "2026-11-27"],
      series: [{ name: "a", branch: null, devices: [4, 1] }, { name: "b", branch: null, devices: [0, 3] }],
    },
    FRAME,
  );
  equal(chart?.bands.map(({ name, label }) => [name, label !== null]), [["a", true], ["b", true]]);
  const heights = (path: string) => [...path.matchAll(/,(-?[\d.]+)/g)].map(([, y]) => Number(y));
  for (const { path } of chart?.bands ?? []) {
    equal(heights(path).every((y) => y >= FRAME.top && y <= FRAME.height - FRAME.bottom), true);
  }
  equal(chart?.yTicks.map(({ word }) => word), ["0", "1", "2", "3", "4"]);
});

Deno.test("one day, or a fleet without releases, is no chart", () => {
  equal(chartOf({ days: ["2026-11-28"], series: [{ name: "a", branch: null, devices: [1] }] }, FRAME), null);
  equal(chartOf(parseAdoption({}), FRAME), null);
  equal(parseAdoption("nonsense"), { days: [], series: [] });
});
