/**
 * Every table of which people edit rows in a form, with the columns that they edit: what a form does not list here it
 * cannot save, and the tests that edit a row in two tabs walk over this list.
 */
import type { Database } from "../data/generated/database.types.ts";

type Tables = Database["public"]["Tables"];
export type TableName = keyof Tables;
/** What is wrong in this list is a type error. */
type Columns<Table extends TableName> = readonly (keyof Tables[Table]["Update"] & string)[];
type Editable = {
  readonly [Table in TableName]?: { key: keyof Tables[Table]["Row"] & string; columns: Columns<Table> };
};

export const EDITABLE = {
  devices: {
    key: "id",
    columns: [
      "name",
      "role",
      "segment",
      "branch",
      "timezone",
      "maintenance_window",
      "poll_interval_s",
      "labels",
    ],
  },
  fleet_settings: {
    key: "id",
    columns: [
      "default_poll_interval_s",
      "offline_after_intervals",
      "clock_drift_s",
      "max_in_flight",
      "spread_ms_per_device",
      "wake_one_by_one_up_to",
      "device_token_ttl_s",
      "enroll_per_minute_per_address",
      "token_per_minute_per_address",
      "requests_per_hour_per_device",
      "device_rows_per_hour",
      "device_bytes_per_hour",
      "max_pending_devices",
      "pending_role",
      "history_retention_months",
      "audit_retention_months",
    ],
  },
} as const satisfies Editable;

export type EditableTable = keyof typeof EDITABLE;
