/**
 * Saves what a person changed in a row, and only if those fields still are what that person saw.
 *
 * The old values of the edited fields travel in the filter of the update, so that the database compares and sets in one
 * step. Other fields do not count: two people may edit different fields, and a machine may touch the row.
 */
import { AppError, toAppError } from "../data/appError.ts";
import type { Client } from "../data/client.ts";
import { EDITABLE, type EditableTable } from "./editable.ts";

export type Values = Record<string, unknown>;

/** One field that somebody else changed meanwhile. */
export interface FieldConflict {
  field: string;
  before: unknown;
  mine: unknown;
  theirs: unknown;
}

export class EditConflict extends AppError {
  constructor(readonly conflicts: readonly FieldConflict[]) {
    super(
      "edited_meanwhile",
      `Somebody else changed ${conflicts.map(({ field }) => words(field)).join(", ")} while you edited.`,
      "Nothing was saved. Choose which value to keep, then save again.",
    );
  }
}

/** "maintenance window", as people read the column. */
export function words(column: string): string {
  return column.replace(/_s$/, "").replaceAll("_", " ");
}

/** The fields of `mine` that differ from what was there before. */
export function changedFields(before: Values, mine: Values): string[] {
  return Object.keys(mine).filter((field) => !same(before[field], mine[field]));
}

/** Fields that were changed by somebody since `before`, as the row is now. */
export function changedMeanwhile(before: Values, now: Values): string[] {
  return Object.keys(before).filter((field) => field in now && !same(before[field], now[field]));
}

/** Those fields that both changed, to different values. */
export function conflictsOf(before: Values, mine: Values, now: Values): FieldConflict[] {
  return changedFields(before, mine)
    .filter((field) => !same(now[field], before[field]) && !same(now[field], mine[field]))
    .map((field) => ({ field, before: before[field], mine: mine[field], theirs: now[field] }));
}

/**
 * Save the changed fields of one row; answers the row as it is then, null if nothing had changed.
 *
 * Throws EditConflict, or an AppError: the server's refusal, or a row that is gone.
 */
export async function saveEdit(
  client: Client,
  table: EditableTable,
  id: string,
  before: Values,
  mine: Values,
): Promise<Values | null> {
  const { key, columns } = EDITABLE[table];
  const fields = changedFields(before, mine);
  const foreign = fields.find((field) => !(columns as readonly string[]).includes(field));
  if (foreign) throw new Error(`${table}.${foreign} is not in EDITABLE`);
  if (fields.length === 0) return null;
  // The names of table and columns come from EDITABLE, which is checked against the schema's types.
  const rows = client.from(table as never);
  let update = rows.update(Object.fromEntries(fields.map((field) => [field, mine[field]])) as never)
    .eq(key as never, id as never);
  for (const field of fields) update = update.filter(field, ...unchanged(before[field]));
  const saved = await update.select(columns.join(","));
  if (saved.error) throw toAppError({ ...saved.error, message: saved.error.message, status: saved.status });
  const [row] = saved.data as unknown as Values[];
  if (row) return row;

  const seen = await rows.select(columns.join(",")).eq(key as never, id as never).maybeSingle();
  if (seen.error) throw toAppError({ ...seen.error, message: seen.error.message, status: seen.status });
  if (!seen.data) {
    throw new AppError("row_gone", "This was deleted while you edited it.", "Nothing was saved.");
  }
  const now = seen.data as unknown as Values;
  const conflicts = conflictsOf(before, mine, now);
  if (conflicts.length > 0) throw new EditConflict(conflicts);
  const agreed = fields.filter((field) => !same(now[field], before[field]));
  if (agreed.length > 0) {
    const both = Object.fromEntries(agreed.map((field) => [field, now[field]]));
    return saveEdit(client, table, id, { ...before, ...both }, mine);
  }
  throw new AppError(
    "rank_too_low",
    "Your rank does not allow this change.",
    "Ask an admin to do it, or to raise your rank: fleetctl operator rank.",
  );
}

/** The filter that holds while a field still has its old value. */
function unchanged(old: unknown): [operator: string, value: unknown] {
  if (old === null || old === undefined) return ["is", null];
  if (typeof old === "boolean") return ["is", old];
  return ["eq", typeof old === "object" ? JSON.stringify(old) : old];
}

/** Equal as JSON, whatever the order of an object's keys. */
export function same(one: unknown, other: unknown): boolean {
  return normal(one) === normal(other);
}

function normal(value: unknown): string {
  return JSON.stringify(
    value ?? null,
    (_key, part) =>
      typeof part === "object" && part !== null && !Array.isArray(part)
        ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
        : part,
  );
}
