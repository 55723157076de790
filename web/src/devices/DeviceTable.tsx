/** Every device as a row; only what is on the screen is drawn, so that ten thousand rows scroll like ten. */
import { Box, Text, UnstyledButton } from "@mantine/core";
import { useMediaQuery } from "@mantine/hooks";
import {
  createColumnHelper,
  createSortedRowModel,
  rowSortingFeature,
  type SortingState,
  tableFeatures,
  useTable,
} from "@tanstack/react-table";
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { useLayoutEffect, useRef, useState } from "react";
import { Link } from "wouter";
import { Ago } from "../components/RelativeTime.tsx";
import { Icon } from "../components/Icon.tsx";
import { StateWord } from "./StateLabel.tsx";
import classes from "./DeviceTable.module.css";
import type { DeviceView } from "./deviceView.ts";
import { compare, type SortColumn } from "./sorting.ts";

const features = tableFeatures({ rowSortingFeature, sortedRowModel: createSortedRowModel() });
const column = createColumnHelper<typeof features, DeviceView>();

const TITLES: Record<SortColumn, string> = {
  name: "Name",
  shown: "State",
  role: "Role",
  segment: "Segment",
  branch: "Branch",
  current: "Release",
  target: "Target",
  contactAt: "Last contact",
  why: "Why it is where it is",
};
const WIDE: SortColumn[] = [
  "name",
  "shown",
  "role",
  "segment",
  "branch",
  "current",
  "target",
  "contactAt",
  "why",
];

const columns = column.columns(
  WIDE.map((id) =>
    column.accessor((view) => view[id], {
      id,
      header: TITLES[id],
      sortFn: (a, b) => compare(id, a.original, b.original),
    })
  ),
);

const ROW_PX = 45;
const CARD_PX = 104;

export function DeviceTable({ views }: { views: DeviceView[] }) {
  const narrow = useMediaQuery("(max-width: 62em)", undefined, { getInitialValueInEffect: false }) ?? false;
  const [sorting, setSorting] = useState<SortingState>([{ id: "shown", desc: false }]);
  const table = useTable({
    features,
    columns,
    data: views,
    getRowId: (view) => view.id,
    enableSortingRemoval: false,
    state: { sorting },
    onSortingChange: setSorting,
  });
  const rows = table.getRowModel().rows;
  const body = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  useLayoutEffect(() => {
    const at = body.current ? body.current.getBoundingClientRect().top + globalThis.scrollY : 0;
    setTop((was) => (Math.abs(was - at) < 1 ? was : at));
  });
  const window = useWindowVirtualizer({
    count: rows.length,
    estimateSize: () => (narrow ? CARD_PX : ROW_PX),
    getItemKey: (index) => rows[index]?.id ?? index,
    overscan: 12,
    scrollMargin: top,
  });
  const items = window.getVirtualItems();
  const before = (items[0]?.start ?? top) - top;
  const after = window.getTotalSize() - ((items.at(-1)?.end ?? top) - top);

  if (narrow) {
    return (
      <div ref={body} role="list" aria-label="Devices">
        <div style={{ height: before }} />
        {items.map(({ index, key }) => {
          const view = rows[index]?.original;
          return view && <Card key={key} view={view} measure={window.measureElement} index={index} />;
        })}
        <div style={{ height: Math.max(0, after) }} />
      </div>
    );
  }

  const headers = table.getHeaderGroups()[0]?.headers ?? [];
  return (
    <div ref={body}>
      <table className={classes.table} aria-label="Devices" aria-rowcount={rows.length + 1}>
        <thead>
          <tr>
            {headers.map((header) => {
              const sorted = header.column.getIsSorted();
              return (
                <th
                  key={header.id}
                  scope="col"
                  className={classes[header.id]}
                  aria-sort={sorted === "asc" ? "ascending" : sorted === "desc" ? "descending" : "none"}
                >
                  <UnstyledButton className={classes.sort} onClick={header.column.getToggleSortingHandler()}>
                    {TITLES[header.id as SortColumn]}
                    {sorted && <Icon name={sorted === "asc" ? "up" : "down"} size={14} />}
                  </UnstyledButton>
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {before > 0 && (
            <tr aria-hidden="true" style={{ height: before }}>
              <td colSpan={WIDE.length} />
            </tr>
          )}
          {items.map(({ index, key }) => {
            const view = rows[index]?.original;
            return view && <Row key={key} view={view} index={index} />;
          })}
          {after > 0 && (
            <tr aria-hidden="true" style={{ height: after }}>
              <td colSpan={WIDE.length} />
            </tr>
          )}
        </tbody>
      </table>
      {rows.length === 0 && <Text p="md" className="soft">No device matches these filters.</Text>}
    </div>
  );
}

function Row({ view, index }: { view: DeviceView; index: number }) {
  return (
    <tr aria-rowindex={index + 2} data-device={view.name} style={{ height: ROW_PX }}>
      <th scope="row">
        <DeviceLink view={view} />
      </th>
      <td>
        <StateWord state={view.shown} />
      </td>
      <td>{view.role}</td>
      <td>{view.segment}</td>
      <td>{view.branch}</td>
      <td>{view.current ?? <Nothing word="none" />}</td>
      <td>{view.target ?? <Nothing word="same" />}</td>
      <td>
        <Ago at={view.contactAt} />
      </td>
      <td className={classes.why} title={view.why}>{view.why}</td>
    </tr>
  );
}

function DeviceLink({ view }: { view: DeviceView }) {
  return (
    <Link href={`/devices/${view.id}`} className={classes.link}>
      <span className={classes.linkName} title={view.name}>{view.name}</span>
      {view.pinned && <Icon name="pin" size={14} />}
      {view.pinned && <span className="visually-hidden">, pinned</span>}
      {view.held && <Icon name="hand" size={14} />}
      {view.held && <span className="visually-hidden">, held</span>}
    </Link>
  );
}

/** Says that there is nothing, without drawing the eye. */
function Nothing({ word }: { word: string }) {
  return (
    <span className="soft">
      <span aria-hidden="true">–</span>
      <span className="visually-hidden">{word}</span>
    </span>
  );
}

interface CardProps {
  view: DeviceView;
  index: number;
  measure: (element: Element | null) => void;
}

/** The same device for a phone. */
function Card({ view, index, measure }: CardProps) {
  return (
    <Box role="listitem" ref={measure} data-index={index} data-device={view.name} className={classes.card}>
      <div className={classes.cardTop}>
        <DeviceLink view={view} />
        <StateWord state={view.shown} />
      </div>
      <Text size="sm" className={classes.cardWhy}>{view.why}</Text>
      <Text size="xs" className="soft">
        {view.current ?? "no release"}
        {view.target && ` → ${view.target}`} · {view.role} · {view.segment} · {view.branch} ·{" "}
        <Ago at={view.contactAt} />
      </Text>
    </Box>
  );
}
