import { equal } from "../testing/assert.ts";
import { bytes, counted } from "./size.ts";

Deno.test("bytes move to the next unit before they would round to 1000", () => {
  const cases: [number, string][] = [
    [0, "0 B"],
    [999, "999 B"],
    [1_000, "1.0 kB"],
    [999_499, "999 kB"],
    [999_500, "1.0 MB"],
    [1_440_000_000, "1.4 GB"],
    [32_000_000_000_000_000, "32000 TB"],
  ];
  for (const [count, shown] of cases) equal(bytes(count), shown);
});

Deno.test("a count names one and many", () => {
  equal(counted(1, "device"), "1 device");
  equal(counted(0, "device"), "0 devices");
  equal(counted(10_000, "entry", "entries"), "10,000 entries");
});
