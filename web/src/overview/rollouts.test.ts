import { equal } from "../testing/assert.ts";
import { nextWords, parseOpenRollouts, progressWords, stageWords } from "./rollouts.ts";

const NOW = Date.parse("2026-11-28T12:00:00Z");
const [rollout] = parseOpenRollouts([{
  rollout_id: "r",
  name: "2.1.0",
  version: "2.1.0",
  state: "running",
  role: null,
  branch: "main",
  devices: 20,
  stages: [
    { position: 1, opened_at: "2026-11-28T11:00:00Z", devices: 5, on_release: 3, in_flight: 1, offline: 1 },
    { position: 2, devices: 15, on_release: 1, waiting: 12, known_bad: 1 },
  ],
  next: { stage: 2, at: "2026-11-28T12:41:30Z", because: "stage 1 soaks until 12:41.", approval: false },
}]);

Deno.test("the parts of a stage add up to the whole, also those that tried and are out", () => {
  equal(rollout?.stages.map((stage) => [stage.open, stage.devices, stageWords(stage)]), [
    [true, 5, "3 run it, 1 updating, 1 offline"],
    [false, 15, "1 run it, 1 tried without success, 1 known bad, 12 waiting"],
  ]);
  for (const stage of rollout?.stages ?? []) {
    equal(stage.parts.reduce((sum, part) => sum + part.devices, 0), stage.devices);
  }
  equal(rollout && progressWords(rollout), "4 of 20 devices run 2.1.0");
});

Deno.test("the next event says when, or why not yet", () => {
  const next = { stage: 2, at: null, because: null, approval: false };
  equal(rollout && nextWords(rollout.next, NOW), "Stage 2 opens in 41 min.");
  equal(nextWords({ ...next, at: "2026-11-28T11:59:00Z" }, NOW), "Stage 2 opens within a minute.");
  equal(
    nextWords({ ...next, at: "2026-11-28T13:00:00Z", approval: true }, NOW),
    "Stage 2 opens in 1 h, if it is approved by then.",
  );
  equal(
    nextWords({ ...next, because: "stage 2 waits for approval.", approval: true }, NOW),
    "Stage 2 waits for approval.",
  );
  equal(
    nextWords({ ...next, because: "stage 1 is not proved (1 of 3 succeeded)." }, NOW),
    "Stage 2 opens later: stage 1 is not proved (1 of 3 succeeded).",
  );
  equal(nextWords({ ...next, stage: null }, NOW), "It completes within a minute.");
});

Deno.test("whatever a newer control plane answers, the page does not break", () => {
  equal(parseOpenRollouts(null), []);
  equal(parseOpenRollouts([{}])[0]?.version, "?");
});
