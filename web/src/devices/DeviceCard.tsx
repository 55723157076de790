import { Box, Text } from "@mantine/core";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { soft } from "../styles/classNames.ts";
import { DeviceLink } from "./DeviceLink.tsx";
import classes from "./DeviceTable.module.css";
import type { DeviceView } from "./deviceView.ts";
import { StateLabel } from "./StateLabel.tsx";

export const CARD_PX = 104;

interface Props {
  view: DeviceView;
  index: number;
  measure: (element: Element | null) => void;
}

/** One device on a narrow screen. */
export function DeviceCard({ view, index, measure }: Props) {
  return (
    <Box role="listitem" ref={measure} data-index={index} data-device={view.name} className={classes.card}>
      <div className={classes.cardTop}>
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
