/** Every device that matches as a row; only rows on the screen are drawn, and only their pages are read. */
import { Text, UnstyledButton } from "@mantine/core";
import { useMediaQuery } from "@mantine/hooks";
import { Icon } from "../components/Icon.tsx";
import { useNow } from "../components/useNow.ts";
import type { SharedRows } from "../fleet/fleetData.ts";
import { soft, visuallyHidden } from "../styles/classNames.ts";
import { CARD_PX, DeviceCard } from "./DeviceCard.tsx";
import { listedView } from "./deviceList.ts";
import classes from "./DeviceTable.module.css";
import { DeviceTableRow, ROW_PX } from "./DeviceTableRow.tsx";
import type { SortColumn, View } from "./filters.ts";
import type { Picking } from "./picking.ts";
import { useDeviceList, useFirstPage } from "./useDeviceList.ts";
import { useWindowRows } from "./useWindowRows.ts";

/** The columns, from left to right; the last one is a sentence and has no order. */
const COLUMNS: { id: SortColumn | "why"; title: string }[] = [
  { id: "name", title: "Name" },
  { id: "shown", title: "State" },
  { id: "role", title: "Role" },
  { id: "segment", title: "Segment" },
  { id: "branch", title: "Branch" },
  { id: "current", title: "Release" },
  { id: "target", title: "Target" },
  { id: "contact", title: "Last contact" },
  { id: "why", title: "Details" },
];

/** How often a device is checked for being offline: a quarter of the shortest poll interval. */
const OFFLINE_STEP_MS = 5000;

interface Props {
  view: View;
  shared: SharedRows;
  first: ReturnType<typeof useFirstPage>;
  setSort: (sort: SortColumn, descending: boolean) => void;
  /** Null for whoever may not change devices. */
  picking: Picking | null;
}

export function DeviceTable({ view, shared, first, setSort, picking }: Props) {
  const narrow = useMediaQuery("(max-width: 62em)", undefined, { getInitialValueInEffect: false }) ?? false;
  const now = useNow(OFFLINE_STEP_MS);
  const total = first.data?.total ?? 0;
  const { body, items, before, after, measure } = useWindowRows(
    total,
    narrow ? CARD_PX : ROW_PX,
    (index) => index,
  );
  const list = useDeviceList(view, first, items.map(({ index }) => index));
  const rows = items.map(({ index }) => {
    const row = list.row(index);
    return { index, view: row && listedView(row, shared, now) };
  });
  const none = total === 0 && <Text p="md" className={soft}>No devices match these filters.</Text>;

  if (narrow) {
    return (
      <div ref={body} role="list" aria-label="Devices" aria-busy={list.isOld}>
        <div style={{ height: before }} />
        {rows.map(({ index, view }) => (
          <DeviceCard key={view?.id ?? index} view={view} measure={measure} index={index} picking={picking} />
        ))}
        <div style={{ height: after }} />
        {none}
      </div>
    );
  }
  return (
    <div ref={body}>
      <table className={classes.table} aria-label="Devices" aria-rowcount={total + 1} aria-busy={list.isOld}>
        <thead>
          <tr>
            {picking && (
              <th scope="col" className={classes.pick}>
                <span className={visuallyHidden}>Selected</span>
              </th>
            )}
            {COLUMNS.map(({ id, title }) => {
              if (id === "why") return <th key={id} scope="col" className={classes.sort}>{title}</th>;
              const sorted = view.sort === id;
              return (
                <th
                  key={id}
                  scope="col"
                  className={classes[id]}
                  aria-sort={!sorted ? "none" : view.descending ? "descending" : "ascending"}
                >
                  <UnstyledButton
                    className={classes.sort}
                    onClick={() => setSort(id, sorted && !view.descending)}
                  >
                    {title}
                    {sorted && <Icon name={view.descending ? "down" : "up"} size={14} />}
                  </UnstyledButton>
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          <Spacer height={before} columns={COLUMNS.length + (picking ? 1 : 0)} />
          {rows.map(({ index, view }) => (
            <DeviceTableRow
              key={view?.id ?? index}
              view={view}
              index={index}
              picking={picking}
              columns={COLUMNS.length}
            />
          ))}
          <Spacer height={after} columns={COLUMNS.length + (picking ? 1 : 0)} />
        </tbody>
      </table>
      {none}
    </div>
  );
}

/** Stands for the rows that are not drawn. */
function Spacer({ height, columns }: { height: number; columns: number }) {
  return height > 0 && (
    <tr aria-hidden="true" style={{ height }}>
      <td colSpan={columns} />
    </tr>
  );
}
