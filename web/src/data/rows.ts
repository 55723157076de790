/** The rows the dashboard reads, and exactly the columns it needs. Types come from the schema. */
import type { Database, Enums, Tables } from "./generated/database.types.ts";

export type DeviceState = Enums<"device_state">;
export type ReportState = Enums<"report_state">;
export type Rank = Enums<"operator_rank">;

/** What the list needs of every device: small, because a fleet has thousands. */
export const DEVICE_COLUMNS =
  "id,name,role,segment,branch,state,pinned_release,hold,hold_reason,hold_until,poll_interval_s,updated_at";
export type DeviceRow = Pick<
  Tables<"devices">,
  | "id"
  | "name"
  | "role"
  | "segment"
  | "branch"
  | "state"
  | "pinned_release"
  | "hold"
  | "hold_reason"
  | "hold_until"
  | "poll_interval_s"
  | "updated_at"
>;

/** A device as `list_devices` answers it: all of its row but its key. */
export type ListedDevice = Omit<Tables<"devices">, "public_key" | "key_number">;

export const STATUS_COLUMNS =
  "device_id,state,phase,reason,current_release,target_release,agent_version,reported_at,pinned_poll_interval_s,error_kind,error";
export type StatusRow = Pick<
  Tables<"device_status">,
  | "device_id"
  | "state"
  | "phase"
  | "reason"
  | "current_release"
  | "target_release"
  | "agent_version"
  | "reported_at"
  | "pinned_poll_interval_s"
  | "error_kind"
  | "error"
>;

export const RELEASE_COLUMNS = "id,version,commit_sha,branch,state,created_at,access";
export type ReleaseRow = Pick<
  Tables<"releases">,
  "id" | "version" | "commit_sha" | "branch" | "state" | "created_at" | "access"
>;

/** What `open_halts()` answers: a halt in words, and how far it reaches. */
export type HaltRow = Database["public"]["Functions"]["open_halts"]["Returns"][number];
export type HaltScope = Enums<"halt_scope">;

export const ALERT_COLUMNS =
  "id,kind,severity,summary,device_id,rollout_id,opened_at,acknowledged_at,acknowledged_by,devices(name),rollouts(name)";
export type AlertRow =
  & Pick<
    Tables<"alerts">,
    | "id"
    | "kind"
    | "severity"
    | "summary"
    | "device_id"
    | "rollout_id"
    | "opened_at"
    | "acknowledged_at"
    | "acknowledged_by"
  >
  & {
    /** What it is about; null if it is neither, or is gone. */
    devices: { name: string } | null;
    rollouts: { name: string } | null;
  };

export const SETTINGS_COLUMNS = "default_poll_interval_s,offline_after_intervals";
export type SettingsRow = Pick<
  Tables<"fleet_settings">,
  "default_poll_interval_s" | "offline_after_intervals"
>;

export const HISTORY_COLUMNS =
  "id,release_id,from_commit,to_commit,outcome,failed_phase,error_kind,error,started_at,finished_at,phase_durations_ms,bytes_fetched";
export type HistoryRow = Pick<
  Tables<"update_history">,
  | "id"
  | "release_id"
  | "from_commit"
  | "to_commit"
  | "outcome"
  | "failed_phase"
  | "error_kind"
  | "error"
  | "started_at"
  | "finished_at"
  | "phase_durations_ms"
  | "bytes_fetched"
>;

export type OverviewRow = Tables<"fleet_overview">;
export type LastDayRow = Tables<"fleet_last_day">;
