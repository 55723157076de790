/** The list: counts, filters, what is selected, then every device that matches, the most urgent first. */
import { Button, Text } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useCallback, useMemo, useState } from "react";
import { useLocation, useSearch } from "wouter";
import { mayOperate } from "../auth/rank.ts";
import { useClient, useOperator } from "../auth/session.tsx";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { EmptyState, PageFrame } from "../components/PageFrame.tsx";
import { readOverview } from "../data/reads.ts";
import { useLive } from "../fleet/useLive.ts";
import { useSharedRows } from "../fleet/useFleet.ts";
import { counted } from "../format/size.ts";
import { type Selector, selectorText } from "../format/selector.ts";
import { EmergencyStop } from "../halts/EmergencyStop.tsx";
import { soft } from "../styles/classNames.ts";
import { BulkBar } from "./BulkBar.tsx";
import classes from "./DevicesPage.module.css";
import { DeviceTable } from "./DeviceTable.tsx";
import { downloadList } from "./download.ts";
import { FilterBar } from "./FilterBar.tsx";
import { chosenStates, readView, type SortColumn, toggleState, writeView } from "./filters.ts";
import type { Selection } from "./picking.ts";
import { StateCounts } from "./StateCounts.tsx";
import { stateCounts } from "./stateCounts.ts";
import { useFirstPage } from "./useDeviceList.ts";

const NOTHING: Selection = { kind: "rows", names: new Map() };

export default function DevicesPage() {
  const client = useClient();
  const operator = useOperator();
  const [, go] = useLocation();
  const query = useSearch();
  const view = useMemo(() => readView(new URLSearchParams(query)), [query]);
  const { shared, error } = useSharedRows();
  const overview = useLive({
    key: ["overview"],
    tables: ["devices", "device_status", "halts", "alerts", "rollouts"],
    read: readOverview,
  });
  const first = useFirstPage(view);
  const total = first.data?.total ?? 0;
  // Whatever was selected was selected in another list.
  const [{ of, selection }, setSelected] = useState({ of: "", selection: NOTHING });
  const shown = selectorText(view.selector);
  const selected = of === shown ? selection : NOTHING;
  const select = useCallback((next: Selection) => setSelected({ of: shown, selection: next }), [shown]);
  const csv = useMutation({
    mutationFn: async () => {
      if (shared) await downloadList(client, view, shared);
    },
  });

  // With a question mark even if nothing follows: without it, the last query would stay in the address.
  const show = (next: Parameters<typeof writeView>[0]) =>
    go(`/devices?${writeView(next)}`, { replace: true });
  const setSelector = (selector: Selector) => show({ ...view, selector });
  const setSort = (sort: SortColumn, descending: boolean) => show({ ...view, sort, descending });
  const picking = useMemo(() => ({
    isPicked: (id: string) => selected.kind === "all" || selected.names.has(id),
    toggle: (id: string, name: string) => {
      const names = new Map(selected.kind === "rows" ? selected.names : []);
      if (!names.delete(id)) names.set(id, name);
      select({ kind: "rows", names });
    },
  }), [selected, select]);
  const mayChange = mayOperate(operator.rank);

  return (
    <PageFrame
      title="Devices"
      loading={!shared || !overview.data || (!first.data && !first.error)}
      error={error ?? overview.error ?? first.error}
      actions={
        <>
          {total > 0 && (
            <Button variant="default" loading={csv.isPending} onClick={() => csv.mutate()}>
              Download CSV
            </Button>
          )}
          {mayChange && <EmergencyStop />}
        </>
      }
    >
      {overview.data && shared && (
        <>
          {csv.error && <ErrorAlert error={csv.error} title="Could not download the list" />}
          <StateCounts
            counts={stateCounts(overview.data)}
            chosen={chosenStates(view.selector)}
            toggle={(state) => setSelector(toggleState(view.selector, state))}
          />
          <FilterBar selector={view.selector} problem={view.problem} setSelector={setSelector} />
          {(overview.data.devices ?? 0) + (overview.data.retired ?? 0) === 0
            ? (
              <EmptyState title="No devices have enrolled yet.">
                <code>fleetctl token create</code>{" "}
                prints a line; run it on the device, and it will appear here.
              </EmptyState>
            )
            : (
              <>
                <div className={classes.line}>
                  <Text size="sm" className={soft} role="status" data-testid="matching">
                    {shown === ""
                      ? `All ${counted(total, "device")}`
                      : `${counted(total, "device")} ${total === 1 ? "matches" : "match"}`}
                  </Text>
                  {mayChange && (
                    <BulkBar selection={selected} total={total} selector={view.selector} select={select} />
                  )}
                </div>
                <DeviceTable
                  view={view}
                  shared={shared}
                  first={first}
                  setSort={setSort}
                  picking={mayChange ? picking : null}
                />
              </>
            )}
        </>
      )}
    </PageFrame>
  );
}
