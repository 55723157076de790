/** Rows for the unit tests of the view model. */
import type { DeviceRow, HaltRow, ReleaseRow, SettingsRow, StatusRow } from "../data/rows.ts";

export const NOW = Date.parse("2026-11-23T12:00:00Z");

export const SETTINGS: SettingsRow = { default_poll_interval_s: 900, offline_after_intervals: 3 };

export function device(fields: Partial<DeviceRow> = {}): DeviceRow {
  return {
    id: "0b4c8d2e-0000-4000-8000-000000000001",
    name: "lobby-1",
    role: "beacon",
    segment: "stable",
    branch: "main",
    state: "active",
    pinned_release: null,
    hold: false,
    hold_reason: null,
    hold_until: null,
    poll_interval_s: null,
    updated_at: "2026-11-23T11:00:00+00:00",
    ...fields,
  };
}

export function status(fields: Partial<StatusRow> = {}): StatusRow {
  return {
    device_id: "0b4c8d2e-0000-4000-8000-000000000001",
    state: "healthy",
    phase: "steady",
    reason: null,
    current_release: "11111111-0000-4000-8000-000000000001",
    target_release: null,
    agent_version: "0.1.0",
    reported_at: "2026-11-23T11:59:30+00:00",
    pinned_poll_interval_s: null,
    error_kind: null,
    error: null,
    ...fields,
  };
}

export const RELEASES: ReleaseRow[] = [
  {
    id: "11111111-0000-4000-8000-000000000001",
    version: "v1",
    commit_sha: "1".repeat(40),
    branch: "main",
    state: "available",
    created_at: "2026-11-20T00:00:00+00:00",
    access: {},
  },
  {
    id: "22222222-0000-4000-8000-000000000002",
    version: "v2",
    commit_sha: "2".repeat(40),
    branch: "main",
    state: "available",
    created_at: "2026-11-21T00:00:00+00:00",
    access: {},
  },
];

export function halt(fields: Partial<HaltRow> = {}): HaltRow {
  return {
    id: "33333333-0000-4000-8000-000000000003",
    scope: "fleet",
    target: null,
    cause: "operator",
    subject: "The whole fleet",
    reason: "v2 breaks the canteen",
    roll_back: false,
    all_at_once: false,
    opened_at: "2026-11-23T11:50:00+00:00",
    opened_by: "ann@fleet.example",
    devices: 4,
    going_back: 0,
    is_past: false,
    ...fields,
  };
}
