/** From rows of update history to what the list of attempts shows. */
import type { IconName } from "../components/Icon.tsx";
import type { Tone } from "../components/StatusText.tsx";
import { fields, number } from "../data/json.ts";
import type { HistoryRow, ReleaseRow } from "../data/rows.ts";
import { bytes } from "../format/size.ts";
import { took } from "../format/time.ts";

export const OUTCOMES: Record<HistoryRow["outcome"], { word: string; tone: Tone; icon: IconName }> = {
  succeeded: { word: "Succeeded", tone: "good", icon: "check" },
  failed: { word: "Failed", tone: "bad", icon: "triangle" },
  rolled_back: { word: "Rolled back", tone: "warn", icon: "undo" },
  skipped: { word: "Skipped", tone: "quiet", icon: "circle" },
};

export interface Phase {
  name: string;
  ms: number;
  /** Part of the whole attempt, 0 to 1. */
  share: number;
  failed: boolean;
}

export interface AttemptView {
  id: string;
  outcome: HistoryRow["outcome"];
  from: string | null;
  to: string;
  startedAt: string;
  took: string;
  fetched: string | null;
  failedPhase: string | null;
  error: string | null;
  errorKind: string | null;
  phases: Phase[];
}

/** The order of `fleet_agent/engine/phases.py`; an unknown phase comes last. */
const PHASE_ORDER = [
  "fetching",
  "verifying",
  "validating",
  "pulling",
  "swapping",
  "starting",
  "probation",
  "committing",
  "rolling_back",
  "entering_safe_mode",
  "recording",
];

export function attemptView(row: HistoryRow, releases: readonly ReleaseRow[]): AttemptView {
  return {
    id: row.id,
    outcome: row.outcome,
    from: row.from_commit && commitName(row.from_commit, releases),
    to: releases.find((release) => release.id === row.release_id)?.version ??
      commitName(row.to_commit, releases),
    startedAt: row.started_at,
    took: took(Date.parse(row.finished_at) - Date.parse(row.started_at)),
    fetched: row.bytes_fetched > 0 ? bytes(row.bytes_fetched) : null,
    failedPhase: row.failed_phase,
    error: row.error,
    errorKind: row.error_kind,
    phases: phases(row),
  };
}

/** The version of a commit, or the start of its id. */
export function commitName(commit: string, releases: readonly ReleaseRow[]): string {
  return releases.find((release) => release.commit_sha === commit)?.version ?? commit.slice(0, 12);
}

function phases(row: HistoryRow): Phase[] {
  const durations = Object.entries(fields(row.phase_durations_ms))
    .map(([name, ms]) => ({ name, ms: Math.max(0, number(ms) ?? 0) }))
    .sort((a, b) => phaseIndex(a.name) - phaseIndex(b.name));
  const whole = durations.reduce((sum, { ms }) => sum + ms, 0);
  return durations.map(({ name, ms }) => ({
    name,
    ms,
    share: whole === 0 ? 0 : ms / whole,
    failed: name === row.failed_phase,
  }));
}

function phaseIndex(name: string): number {
  const index = PHASE_ORDER.indexOf(name);
  return index === -1 ? PHASE_ORDER.length : index;
}
