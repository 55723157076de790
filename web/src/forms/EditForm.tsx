/**
 * The form that edits a row of a table in EDITABLE. It survives a reload and a new sign-in, says what somebody else
 * changed meanwhile, and is refused with both values if that was the same field.
 */
import { Button, Group, Stack, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import type { FormEvent, ReactNode } from "react";
import { useClient } from "../auth/session.tsx";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { soft } from "../styles/classNames.ts";
import type { EditableTable } from "./editable.ts";
import { changedFields, changedMeanwhile, EditConflict, saveEdit, type Values, words } from "./saveEdit.ts";
import type { DraftHandle } from "./useDraft.ts";

export interface EditFormProps<Row extends Values> {
  table: EditableTable;
  id: string;
  /** From `useDraft`; the form is shown while it has a draft. */
  form: DraftHandle<Row>;
  /** The row as the page shows it now; only its columns of EDITABLE. */
  now: Row;
  /** The inputs: they read `mine` and call `change`. */
  children: (mine: Row, change: (fields: Partial<Row>) => void) => ReactNode;
  /** How a value is shown when two differ; texts and numbers need none. */
  shown?: (field: string, value: unknown) => string;
}

export function EditForm<Row extends Values>({ table, id, form, now, children, shown }: EditFormProps<Row>) {
  const client = useClient();
  const cache = useQueryClient();
  const { draft, change, rebase, discard } = form;
  const save = useMutation({
    mutationFn: async ({ before, mine }: { before: Row; mine: Row }) => {
      await saveEdit(client, table, id, before, mine);
      await cache.invalidateQueries();
    },
    onSuccess: discard,
  });
  if (!draft) return null;
  const { before, mine } = draft;
  const asText = (field: string, value: unknown) => shown ? shown(field, value) : shownValue(value);
  const conflicts = save.error instanceof EditConflict ? save.error.conflicts : [];
  const elsewhere = changedMeanwhile(before, now);
  const edited = changedFields(before, mine);

  function submit(event: FormEvent) {
    event.preventDefault();
    if (draft) save.mutate(draft);
  }

  function settle(field: string, theirs: unknown, keep: "mine" | "theirs") {
    rebase({ [field]: theirs } as Partial<Row>);
    if (keep === "theirs") change({ [field]: theirs } as Partial<Row>);
    if (conflicts.length <= 1) save.reset();
  }

  return (
    <form onSubmit={submit} data-form={table} aria-label="Edit">
      <Stack gap="sm">
        {children(mine, change)}
        {elsewhere.length > 0 && conflicts.length === 0 && (
          <Text size="sm" className={soft} role="status">
            Changed by somebody else meanwhile:{" "}
            {elsewhere.map((field) => `${words(field)} is now ${asText(field, now[field])}`).join("; ")}.
          </Text>
        )}
        {save.error && <ErrorAlert error={save.error} title="Not saved" />}
        {conflicts.filter(({ field, theirs }) => !Object.is(before[field], theirs)).map((
          { field, mine: yours, theirs },
        ) => (
          <Group key={field} gap="xs" data-conflict={field}>
            <Text size="sm">
              <b>{words(field)}</b>: yours is {asText(field, yours)}, theirs is {asText(field, theirs)}.
            </Text>
            <Button size="compact-sm" variant="default" onClick={() => settle(field, theirs, "mine")}>
              Use mine
            </Button>
            <Button size="compact-sm" variant="default" onClick={() => settle(field, theirs, "theirs")}>
              Use theirs
            </Button>
          </Group>
        ))}
        <Group justify="flex-end">
          <Button variant="default" onClick={discard}>Cancel</Button>
          <Button type="submit" loading={save.isPending} disabled={edited.length === 0}>Save</Button>
        </Group>
      </Stack>
    </form>
  );
}

function shownValue(value: unknown): string {
  if (value === null || value === undefined || value === "") return "empty";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
