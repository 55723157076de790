import { equal } from "../testing/assert.ts";
import { type ConnectionFacts, connectionStatus, pollEvery, rejoinAfter } from "./connectionStatus.ts";

const now = 1_000_000_000;
const word = (facts: Partial<ConnectionFacts>) =>
  connectionStatus({ channel: "live", readAt: now - 1000, failing: false, pollSeconds: 60, ...facts }, now)
    .word;

Deno.test("live is only shown while the channel is joined", () => {
  equal(word({}), "Live");
  equal(word({ channel: "lost" }), "Polling");
  equal(word({ channel: "joining" }), "Connecting");
});

Deno.test("without the channel, data older than two polls is stale", () => {
  equal(word({ channel: "lost", readAt: now - 120_000 }), "Polling");
  equal(word({ channel: "lost", readAt: now - 120_001 }), "Stale");
});

Deno.test("a failed load without the channel is stale at once, and says how old", () => {
  equal(word({ channel: "lost", failing: true }), "Stale");
  const { sentence } = connectionStatus(
    { channel: "lost", readAt: now - 65_000, failing: true, pollSeconds: 60 },
    now,
  );
  equal(sentence.includes("1 min old"), true);
});

Deno.test("without the channel the sentence says how often the lists really reload", () => {
  const facts = { channel: "lost", readAt: now - 1000, failing: false, pollSeconds: 60 } as const;
  equal(connectionStatus(facts, now).sentence.includes("every 15 s until"), true);
  equal(connectionStatus({ ...facts, pollSeconds: 5 }, now).sentence.includes("every 5 s until"), true);
});

Deno.test("without the channel the lists reload quickly, never slower than configured", () => {
  equal(pollEvery("live", 600), 600);
  equal(pollEvery("lost", 600), 15);
  equal(pollEvery("lost", 5), 5);
});

Deno.test("joining again waits longer each time, up to a minute, and never the same for every page", () => {
  equal([rejoinAfter(0, 0), rejoinAfter(0, 1)], [500, 1000]);
  equal([rejoinAfter(3, 0), rejoinAfter(3, 1)], [4000, 8000]);
  equal([rejoinAfter(50, 0), rejoinAfter(50, 1)], [30_000, 60_000]);
});
