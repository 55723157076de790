/** What is selected, in words, and what can be done with it. */
import { Alert, Button, NativeSelect, Text } from "@mantine/core";
import { lazy, Suspense, useState } from "react";
import { counted } from "../format/size.ts";
import type { Selector } from "../format/selector.ts";
import { soft } from "../styles/classNames.ts";
import { BULK_ACTIONS, type BulkResult, resultWords } from "./bulk.ts";
import classes from "./BulkBar.module.css";
import type { Selection } from "./picking.ts";

const BulkDialog = lazy(() => import("./BulkDialog.tsx"));

interface Props {
  selection: Selection;
  /** How many match now. */
  total: number;
  selector: Selector;
  select: (selection: Selection) => void;
}

export function BulkBar({ selection, total, selector, select }: Props) {
  const [action, setAction] = useState("");
  const [result, setResult] = useState<BulkResult | null>(null);
  const count = selection.kind === "all" ? selection.count : selection.names.size;
  const none: Selection = { kind: "rows", names: new Map() };
  return (
    <>
      <div className={classes.bar} role="group" aria-label="Selection">
        <Text size="sm" role="status" data-testid="selection">
          {count === 0
            ? <span className={soft}>Nothing is selected.</span>
            : selection.kind === "all"
            ? <b>All {counted(count, "device")} that match are selected.</b>
            : <b>{counted(count, "device")} selected: these rows only.</b>}
        </Text>
        {total > 0 && selection.kind === "rows" && (
          <Button
            size="compact-sm"
            variant="default"
            onClick={() => select({ kind: "all", count: total })}
          >
            Select all {total.toLocaleString("en")} that match
          </Button>
        )}
        {count > 0 && (
          <>
            <NativeSelect
              size="xs"
              aria-label="Change the selected devices"
              value={action}
              data={[
                { value: "", label: `Change ${counted(count, "device")}…` },
                ...BULK_ACTIONS.map(({ id, label }) => ({ value: id, label })),
              ]}
              onChange={(event) => setAction(event.currentTarget.value)}
            />
            <Button size="compact-sm" variant="default" onClick={() => select(none)}>Clear selection</Button>
          </>
        )}
      </div>
      {result && (
        <Alert
          color={result.refused.length > 0 ? "orange" : "green"}
          variant="outline"
          title={`${resultWords(result)}.`}
          withCloseButton
          closeButtonLabel="Close"
          onClose={() => setResult(null)}
          role="status"
          data-testid="bulk-result"
        >
          {result.refused.length > 0 && (
            <ul className={classes.refused}>
              {result.refused.slice(0, 20).map(({ name, message, hint }) => (
                <li key={name}>
                  <b>{name}</b>: {message} {hint}
                </li>
              ))}
              {result.refused.length > 20 && (
                <li>and {(result.refused.length - 20).toLocaleString("en")} more</li>
              )}
            </ul>
          )}
        </Alert>
      )}
      {action !== "" && (
        <Suspense>
          <BulkDialog
            action={action}
            selection={selection}
            selector={selector}
            done={(answer) => {
              setResult(answer);
              select(none);
            }}
            close={() => setAction("")}
          />
        </Suspense>
      )}
    </>
  );
}
