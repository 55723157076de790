import { equal } from "../testing/assert.ts";
import { clockDrift, containers, logLines, meters, ownSettings } from "./report.ts";

Deno.test("a meter warns at 80 % and alarms at 95 %", () => {
  const tones = (percent: number) => meters({ cpu_percent: percent })[0]?.tone;
  equal([79.9, 80, 94.9, 95].map(tones), ["good", "warn", "warn", "bad"]);
});

Deno.test("memory is what is used, disk is what is free", () => {
  const [memory, disk] = meters({
    memory_used_bytes: 250_000_000,
    memory_total_bytes: 1_000_000_000,
    disk_free_bytes: 1_000_000_000,
    disk_total_bytes: 32_000_000_000,
  });
  equal([memory?.share, memory?.shown], [0.25, "250 MB of 1.0 GB"]);
  equal([disk?.shown, disk?.tone], ["1.0 GB free of 32.0 GB", "bad"]);
});

Deno.test("what was not reported is left out, and a total of zero divides nothing", () => {
  equal(meters({}), []);
  equal(meters(null), []);
  equal(meters({ memory_used_bytes: 5, memory_total_bytes: 0, cpu_percent: "high" }), []);
});

Deno.test("a container is good only if it runs and no check fails", () => {
  const tone = (fields: object) => containers([{ service: "web", image: "i", ...fields }])[0]?.tone;
  equal(tone({ state: "running", health: "healthy" }), "good");
  equal(tone({ state: "running" }), "good");
  equal(tone({ state: "running", health: "starting" }), "busy");
  equal(tone({ state: "running", health: "unhealthy" }), "bad");
  equal(tone({ state: "exited", exit_code: 137 }), "bad");
  equal(tone({ state: "exited", exit_code: 0 }), "quiet");
  equal(tone({}), "bad");
});

Deno.test("a stopped container shows its exit code", () => {
  equal(containers([{ service: "web", state: "exited", exit_code: 137 }])[0]?.shown, "exited (137)");
});

Deno.test("containers stand by the name of their service", () => {
  equal(containers([{ service: "web" }, { service: "clock" }]).map((it) => it.service), ["clock", "web"]);
});

Deno.test("the newest log line comes first, errors are marked", () => {
  const lines = logLines([{ at: "1", level: "WARNING", message: "a" }, {
    at: "2",
    level: "ERROR",
    message: "b",
  }]);
  equal(lines.map((line) => [line.message, line.bad]), [["b", true], ["a", false]]);
});

Deno.test("a clock that is off says by how much and which way, up to 5 s it says nothing", () => {
  const at = "2026-11-23T12:00:00Z";
  equal(clockDrift("2026-11-23T12:00:05Z", at), null);
  equal(clockDrift("2026-11-23T12:00:06Z", at), "6 s ahead");
  equal(clockDrift("1970-01-01T00:00:00Z", at)?.endsWith("behind"), true);
  equal(clockDrift(null, at), null);
});

Deno.test("only what device.json overrides is listed", () => {
  const labels = { site: "rome", floor: 2 };
  equal(ownSettings({ poll_interval_s: 3600, labels, pinned: ["poll_interval_s", "labels.floor"] }), [
    "poll interval 1 h",
    "floor: 2",
  ]);
  equal(ownSettings({ poll_interval_s: 900, labels, pinned: [] }), []);
  equal(ownSettings({ pinned: ["labels.gone", 7] }), ["labels.gone"]);
  equal(ownSettings({ pinned: "labels" }), []);
  equal(ownSettings(undefined), []);
});
