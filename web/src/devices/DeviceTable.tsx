/** Every device as a row; only rows on the screen are drawn, so that ten thousand scroll like ten. */
import { Text, UnstyledButton } from "@mantine/core";
import { useMediaQuery } from "@mantine/hooks";
import {
  createColumnHelper,
  createSortedRowModel,
  rowSortingFeature,
  type SortingState,
  tableFeatures,
  useTable,
} from "@tanstack/react-table";
import { useState } from "react";
import { Icon } from "../components/Icon.tsx";
import { soft } from "../styles/classNames.ts";
import { CARD_PX, DeviceCard } from "./DeviceCard.tsx";
import classes from "./DeviceTable.module.css";
import { DeviceTableRow, ROW_PX } from "./DeviceTableRow.tsx";
import type { DeviceView } from "./deviceView.ts";
import { compare, type SortColumn } from "./sorting.ts";
import { useWindowRows } from "./useWindowRows.ts";

const features = tableFeatures({ rowSortingFeature, sortedRowModel: createSortedRowModel() });
const column = createColumnHelper<typeof features, DeviceView>();

/** The columns, from left to right. */
const TITLES: Record<SortColumn, string> = {
  name: "Name",
  shown: "State",
  role: "Role",
  segment: "Segment",
  branch: "Branch",
  current: "Release",
  target: "Target",
  contactAt: "Last contact",
  why: "Details",
};
const COLUMNS = Object.keys(TITLES) as SortColumn[];

const columns = column.columns(
  COLUMNS.map((id) =>
    column.accessor((view) => view[id], {
      id,
      header: TITLES[id],
      sortFn: (a, b) => compare(id, a.original, b.original),
    })
  ),
);

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
  const { body, items, before, after, measure } = useWindowRows(
    rows.length,
    narrow ? CARD_PX : ROW_PX,
    (index) => rows[index]?.id ?? String(index),
  );

  if (narrow) {
    return (
      <div ref={body} role="list" aria-label="Devices">
        <div style={{ height: before }} />
        {items.map(({ index, key }) => {
          const view = rows[index]?.original;
          return view && <DeviceCard key={key} view={view} measure={measure} index={index} />;
        })}
        <div style={{ height: after }} />
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
          <Spacer height={before} />
          {items.map(({ index, key }) => {
            const view = rows[index]?.original;
            return view && <DeviceTableRow key={key} view={view} index={index} />;
          })}
          <Spacer height={after} />
        </tbody>
      </table>
      {rows.length === 0 && <Text p="md" className={soft}>No devices match these filters.</Text>}
    </div>
  );
}

/** Stands for the rows that are not drawn. */
function Spacer({ height }: { height: number }) {
  return height > 0 && (
    <tr aria-hidden="true" style={{ height }}>
      <td colSpan={COLUMNS.length} />
    </tr>
  );
}
