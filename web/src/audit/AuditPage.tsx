/** Who changed what: filters, before and after, and taking it back. */
import { Alert, Anchor, Button, List, NativeSelect, Text, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { Link } from "wouter";
import { mayOperate } from "../auth/rank.ts";
import { useClient, useOperator } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { EmptyState, PageFrame } from "../components/PageFrame.tsx";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { useFleet } from "../fleet/useFleet.ts";
import { useLive } from "../fleet/useLive.ts";
import { counted } from "../format/size.ts";
import { soft } from "../styles/classNames.ts";
import {
  type Action,
  actionsOf,
  AUDITED_TABLES,
  type AuditRow,
  entryWords,
  fieldsOf,
  nameInEntry,
  rowNamed,
  rowWord,
  type Undone,
  undoneWords,
  valueText,
} from "./audit.ts";
import classes from "./AuditPage.module.css";
import { AUDIT_ROWS, type AuditFilter, readAudit, undo } from "./reads.ts";

/** Entries of one action that are shown before "Show all". */
const SHOWN_AT_ONCE = 5;

export default function AuditPage() {
  const client = useClient();
  const cache = useQueryClient();
  const operator = useOperator();
  const [narrowed, setFilter] = useState({ table: "", actor: "" });
  const [name, setName] = useState("");
  const [pages, setPages] = useState(1);
  const [asking, setAsking] = useState<{ action: Action; entry?: AuditRow } | null>(null);
  const { fleet } = useFleet();
  const filter: AuditFilter = { ...narrowed, row: rowNamed(name, fleet?.devices ?? []) };
  const { data: rows, error } = useLive({
    key: ["audit", filter, pages],
    tables: AUDITED_TABLES.map(({ value }) => value),
    read: (client) => readAudit(client, filter, pages),
    keepPrevious: true,
  });
  const names = useMemo(() =>
    new Map<string, string>([
      ...(fleet?.devices ?? []).map(({ id, name }) => [id, name] as const),
      ...(fleet?.releases ?? []).map(({ id, version }) => [id, version ?? id] as const),
    ]), [fleet]);
  const actions = useMemo(() => actionsOf(rows ?? []), [rows]);
  const take = useMutation({
    mutationFn: (what: { action: Action; entry?: AuditRow }) =>
      undo(client, what.entry ? { entry: what.entry.id } : { action: what.action.id }),
    onSuccess: () => cache.invalidateQueries(),
  });
  const narrow = (change: Partial<typeof narrowed>) => {
    setFilter({ ...narrowed, ...change });
    setPages(1);
  };
  const filtered = Object.values(filter).some(Boolean);

  return (
    <PageFrame
      title="Audit"
      intro="Every change that people, scripts, and policy made, newest first. Undo is a new change: nothing is removed from this list."
      loading={!rows}
      error={error}
    >
      <div className={classes.filters}>
        <NativeSelect
          label="What"
          data={[{ value: "", label: "Everything" }, ...AUDITED_TABLES]}
          value={filter.table}
          onChange={(event) => narrow({ table: event.currentTarget.value })}
        />
        <TextInput
          label="Who"
          placeholder="Part of an email address"
          value={filter.actor}
          onChange={(event) => narrow({ actor: event.currentTarget.value })}
        />
        <TextInput
          label="Device or other name"
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
        />
      </div>
      {take.data && <Outcome answers={take.data} names={names} />}
      {rows && rows.length === 0 && (
        <EmptyState title={filtered ? "No change matches" : "No changes yet"}>
          {filtered
            ? "Clear a filter to see more."
            : "The first edit of a device, a release, or a setting appears here."}
        </EmptyState>
      )}
      <ul className={classes.actions}>
        {actions.map((action) => (
          <ActionItem
            key={`${action.id} ${action.entries[0]?.id}`}
            action={action}
            names={names}
            undo={mayOperate(operator.rank)
              ? (entry) => setAsking(entry ? { action, entry } : { action })
              : null}
          />
        ))}
      </ul>
      {rows && rows.length >= pages * AUDIT_ROWS && (
        <Button
          variant="default"
          onClick={() => setPages(pages + 1)}
        >
          Show older changes
        </Button>
      )}
      {asking && (
        <ConfirmWithReason
          title={asking.entry ? "Undo this change?" : "Undo the whole action?"}
          action={asking.entry ? "Undo 1 change" : "Undo the action"}
          run={async () => {
            await take.mutateAsync(asking);
          }}
          close={() => setAsking(null)}
        >
          <Text size="sm">
            {asking.entry
              ? `The ${rowWord(asking.entry.table_name)} ${
                nameOf(asking.entry, names)
              } gets back the values from before.`
              : "Everything that was changed together gets back the values from before."}{" "}
            A row that was changed again since is left as it is, and named.
          </Text>
        </ConfirmWithReason>
      )}
    </PageFrame>
  );
}

function nameOf(entry: AuditRow, names: ReadonlyMap<string, string>): string {
  return names.get(entry.row_id) ?? nameInEntry(entry);
}

interface ActionItemProps {
  action: Action;
  names: ReadonlyMap<string, string>;
  /** Ask to undo one entry, or all of them; null for whoever may not. */
  undo: ((entry?: AuditRow) => void) | null;
}

function ActionItem({ action, names, undo }: ActionItemProps) {
  const [whole, setWhole] = useState(false);
  const several = action.entries.length > 1;
  const shown = whole ? action.entries : action.entries.slice(0, SHOWN_AT_ONCE);
  return (
    <li className={classes.action} data-action={action.id}>
      <Text size="sm" className={soft} component="div">
        <b>{action.actor}</b> <RelativeTime at={action.at} />
        {several && ` · ${counted(action.entries.length, "change")} at once`}
      </Text>
      {undo && several
        ? <Button size="compact-sm" variant="default" onClick={() => undo()}>Undo all</Button>
        : <span />}
      <ul className={classes.entries}>
        {shown.map((entry) => (
          <li key={entry.id} className={classes.entry} data-entry={entry.table_name}>
            <Text className={classes.name} component="div">
              {entryWords(entry)} {entry.table_name === "devices"
                ? (
                  <Anchor component={Link} href={`/devices/${entry.row_id}`} underline="always">
                    {nameOf(entry, names)}
                  </Anchor>
                )
                : <b>{nameOf(entry, names)}</b>}
            </Text>
            {undo
              ? (
                <Button
                  size="compact-sm"
                  variant="subtle"
                  aria-label={`Undo: ${entryWords(entry)} ${nameOf(entry, names)}`}
                  onClick={() => undo(entry)}
                >
                  Undo
                </Button>
              )
              : <span />}
            <ul className={classes.fields}>
              {fieldsOf(entry).map(({ field, before, after }) => (
                <Text key={field} size="sm" component="li">
                  <span className={soft}>{field}:</span> {entry.action === "update"
                    ? (
                      <>
                        <del>{valueText(before)}</del> → {valueText(after)}
                      </>
                    )
                    : valueText(entry.action === "insert" ? after : before)}
                </Text>
              ))}
            </ul>
          </li>
        ))}
      </ul>
      {shown.length < action.entries.length && (
        <Button
          size="compact-sm"
          variant="subtle"
          onClick={() => setWhole(true)}
        >
          Show all {counted(action.entries.length, "change")}
        </Button>
      )}
    </li>
  );
}

function Outcome({ answers, names }: { answers: readonly Undone[]; names: ReadonlyMap<string, string> }) {
  const left = answers.filter(({ outcome }) => outcome !== "undone");
  return (
    <Alert
      color={left.length > 0 ? "yellow" : "blue"}
      variant="light"
      title={undoneWords(answers)}
      role="status"
    >
      {left.length > 0 && (
        <List size="sm">
          {left.map(({ entry_id, table_name, row_id, message }) => (
            <List.Item key={entry_id}>
              {rowWord(table_name)} {names.get(row_id) ?? row_id}: {message}
            </List.Item>
          ))}
        </List>
      )}
    </Alert>
  );
}
