/** The audit log as a person reads it: what was changed together, which fields, and what undoing it came to. */
import type { Tables } from "../data/generated/database.types.ts";
import { counted } from "../format/size.ts";

export const AUDIT_COLUMNS = "id,at,actor,action,table_name,row_id,before,after,action_id";
export type AuditRow = Pick<
  Tables<"audit_log">,
  "id" | "at" | "actor" | "action" | "table_name" | "row_id" | "before" | "after" | "action_id"
>;

/** Entries of one request or transaction, newest first. */
export interface Action {
  id: string;
  at: string;
  actor: string;
  entries: AuditRow[];
}

export interface FieldChange {
  field: string;
  /** Undefined: the row was not there. */
  before: unknown;
  after: unknown;
}

/** What people call a row of each table; a table without its own word is called by its name. */
const ROW_WORDS: Record<string, string> = {
  devices: "device",
  device_roles: "role",
  device_commands: "command",
  segments: "segment",
  branches: "branch",
  releases: "release",
  rollouts: "rollout",
  rollout_stages: "stage",
  rollout_templates: "template",
  rollout_template_stages: "stage of template",
  halts: "halt",
  known_bad_patterns: "known-bad pattern",
  known_bad_releases: "known-bad release",
  maintenance_windows: "window",
  maintenance_openings: "opening of window",
  provisioning_tokens: "token",
  fleet_settings: "settings",
  operators: "person",
  slo_targets: "target",
};

const VERBS: Record<string, string> = { insert: "added", update: "changed", delete: "deleted" };

/** The tables that the log has entries of, as the filter offers them. */
export const AUDITED_TABLES = Object.keys(ROW_WORDS).map((table) => ({
  value: table,
  label: rowWord(table),
})).sort((a, b) => a.label.localeCompare(b.label, "en"));

/** "window", or the table's own name in words. */
export function rowWord(table: string): string {
  return ROW_WORDS[table] ?? table.replaceAll("_", " ");
}

/** "changed device"; the row's own name follows it. */
export function entryWords({ action, table_name }: Pick<AuditRow, "action" | "table_name">): string {
  return `${VERBS[action] ?? action} ${rowWord(table_name)}`;
}

/** Entries as they come, newest first, joined to actions. */
export function actionsOf(rows: readonly AuditRow[]): Action[] {
  const actions: Action[] = [];
  for (const row of rows) {
    const last = actions.at(-1);
    if (last?.id === row.action_id) last.entries.push(row);
    else actions.push({ id: row.action_id, at: row.at, actor: row.actor, entries: [row] });
  }
  return actions;
}

/** The fields of one entry with their values, in the order of their names; what is empty in a new or deleted row is left out. */
export function fieldsOf(
  { action, before, after }: Pick<AuditRow, "action" | "before" | "after">,
): FieldChange[] {
  const old = record(before), now = record(after);
  const names = [...new Set([...Object.keys(old), ...Object.keys(now)])].sort();
  return names.filter((field) => action === "update" || !isEmpty((action === "insert" ? now : old)[field]))
    .map((field) => ({ field, before: old[field], after: now[field] }));
}

/** The id of the row that is meant by a name: of a device, or the name itself, which most other tables have as their id. */
export function rowNamed(text: string, devices: readonly { id: string; name: string }[]): string {
  const name = text.trim();
  return devices.find((device) => device.name.toLowerCase() === name.toLowerCase())?.id ?? name;
}

/** A value as text: a text as it is, nothing as "empty", anything else as JSON. */
export function valueText(value: unknown): string {
  if (isEmpty(value)) return "empty";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** How the row calls itself in the entry, if it says so; rows of tables keyed by a name have it as their id. */
export function nameInEntry(
  { row_id, before, after }: Pick<AuditRow, "row_id" | "before" | "after">,
): string {
  const fields = { ...record(before), ...record(after) };
  for (const field of ["name", "version", "email"]) {
    const value = fields[field];
    if (typeof value === "string" && value !== "") return value;
  }
  return row_id;
}

export interface Undone {
  entry_id: number;
  table_name: string;
  row_id: string;
  outcome: string;
  message: string | null;
}

/** "Undone: 3 changes. Not undone: 1 change." */
export function undoneWords(answers: readonly Undone[]): string {
  const undone = answers.filter(({ outcome }) => outcome === "undone").length;
  const rest = answers.length - undone;
  const sentence = `Undone: ${counted(undone, "change")}.`;
  return rest === 0 ? sentence : `${sentence} Not undone: ${counted(rest, "change")}.`;
}

function isEmpty(value: unknown): boolean {
  return value === null || value === undefined || value === "";
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
}
