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
} as const satisfies Editable;

export type EditableTable = keyof typeof EDITABLE;
