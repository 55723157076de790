import { Box, Text } from "@mantine/core";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { soft } from "../styles/classNames.ts";
import { DeviceLink } from "./DeviceLink.tsx";
import type { ListedView } from "./deviceList.ts";
import classes from "./DeviceTable.module.css";
import type { Picking } from "./picking.ts";
import { PickBox } from "./DeviceTableRow.tsx";
import { StateLabel } from "./StateLabel.tsx";

export const CARD_PX = 104;

interface Props {
  /** Undefined while its page is read. */
  view: ListedView | undefined;
  index: number;
  measure: (element: Element | null) => void;
  picking: Picking | null;
}

/** One device on a narrow screen. */
export function DeviceCard({ view, index, measure, picking }: Props) {
  if (!view) {
    return (
      <Box
        role="listitem"
        ref={measure}
        data-index={index}
        className={`${classes.card} ${classes.cardLoading}`}
      >
        <Text size="sm" className={soft}>Loading…</Text>
      </Box>
    );
  }
  return (
    <Box role="listitem" ref={measure} data-index={index} data-device={view.name} className={classes.card}>
      <div className={classes.cardTop}>
        {picking && <PickBox view={view} picking={picking} />}
        <DeviceLink view={view} />
        <StateLabel state={view.shown} />
      </div>
      <Text size="sm" className={classes.cardWhy}>{view.why}</Text>
      <Text size="xs" className={soft}>
        {view.current ?? "no release"}
        {view.target && ` → ${view.target}`} · {view.role} · {view.segment} · {view.branch} ·{" "}
        <RelativeTime at={view.contactAt} />
      </Text>
    </Box>
  );
}
