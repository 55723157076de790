import { equal } from "../testing/assert.ts";
import {
  actionsOf,
  type AuditRow,
  entryWords,
  fieldsOf,
  nameInEntry,
  undoneWords,
  valueText,
} from "./audit.ts";

const entry = (id: number, fields: Partial<AuditRow> = {}): AuditRow => ({
  id,
  at: "2026-11-26T10:00:00Z",
  actor: "ada@example.com",
  action: "update",
  table_name: "devices",
  row_id: "0b4c8d2e-0000-4000-8000-000000000001",
  before: { segment: "canary" },
  after: { segment: "stable" },
  action_id: "a",
  ...fields,
});

Deno.test("what was changed together stands together", () => {
  const actions = actionsOf([entry(4), entry(3), entry(2, { action_id: "b" }), entry(1)]);
  equal(actions.map(({ id, entries }) => [id, entries.length]), [["a", 2], ["b", 1], ["a", 1]]);
});

Deno.test("an entry names its fields, a new row only those that have a value", () => {
  equal(fieldsOf(entry(1)), [{ field: "segment", before: "canary", after: "stable" }]);
  equal(fieldsOf(entry(1, { action: "insert", before: null, after: { name: "x", description: null } })), [
    { field: "name", before: undefined, after: "x" },
  ]);
  equal(fieldsOf(entry(1, { before: { hold_reason: "x" }, after: { hold_reason: null } })), [
    { field: "hold_reason", before: "x", after: null },
  ]);
});

Deno.test("rows and values are shown as words", () => {
  equal(entryWords(entry(1, { action: "delete", table_name: "maintenance_windows" })), "deleted window");
  equal(entryWords(entry(1, { table_name: "something_new" })), "changed something new");
  equal(nameInEntry(entry(1, { after: { version: "2.1.0" } })), "2.1.0");
  equal(nameInEntry(entry(1, { row_id: "canary" })), "canary");
  equal([valueText(null), valueText(false), valueText({ a: 1 }), valueText("x")], [
    "empty",
    "false",
    '{"a":1}',
    "x",
  ]);
});

Deno.test("what undoing came to is counted", () => {
  const answer = (outcome: string) => ({
    entry_id: 1,
    table_name: "devices",
    row_id: "x",
    outcome,
    message: null,
  });
  equal(undoneWords([answer("undone")]), "Undone: 1 change.");
  equal(undoneWords([answer("undone"), answer("moved_on")]), "Undone: 1 change. Not undone: 1 change.");
});
