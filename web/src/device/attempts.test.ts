import type { HistoryRow } from "../data/rows.ts";
import { equal } from "../testing/assert.ts";
import { RELEASES } from "../testing/exampleRows.ts";
import { attemptView, OUTCOMES } from "./attempts.ts";

const row = (fields: Partial<HistoryRow> = {}): HistoryRow => ({
  id: "h",
  release_id: RELEASES[1]?.id ?? null,
  from_commit: "1".repeat(40),
  to_commit: "2".repeat(40),
  outcome: "rolled_back",
  failed_phase: "probation",
  error_kind: "unhealthy",
  error: "web did not answer.",
  started_at: "2026-11-23T12:00:00+00:00",
  finished_at: "2026-11-23T12:00:08.5+00:00",
  phase_durations_ms: { probation: 6000, fetching: 2000 },
  bytes_fetched: 1_440_000,
  ...fields,
});

Deno.test("an attempt names both versions, how long it took and what it fetched", () => {
  const { from, to, took, fetched } = attemptView(row(), RELEASES);
  equal({ from, to, took, fetched }, { from: "v1", to: "v2", took: "8.5 s", fetched: "1.4 MB" });
});

Deno.test("a commit that is no release is shown by the start of its id", () => {
  equal(attemptView(row({ release_id: null, to_commit: "f".repeat(40) }), RELEASES).to, "f".repeat(12));
});

Deno.test("a first install comes from nothing, and nothing fetched is left out", () => {
  const { from, fetched } = attemptView(row({ from_commit: null, bytes_fetched: 0 }), RELEASES);
  equal({ from, fetched }, { from: null, fetched: null });
});

Deno.test("phases stand in the order of an update, with their shares, the failed one marked", () => {
  equal(attemptView(row(), RELEASES).phases, [
    { name: "fetching", ms: 2000, share: 0.25, failed: false },
    { name: "probation", ms: 6000, share: 0.75, failed: true },
  ]);
});

Deno.test("phases that took no time share nothing, nonsense counts as nothing", () => {
  equal(attemptView(row({ phase_durations_ms: { fetching: "x" } }), RELEASES).phases[0]?.share, 0);
});

Deno.test("each outcome has its own word and icon", () => {
  equal(new Set(Object.values(OUTCOMES).map(({ icon }) => icon)).size, 4);
});
