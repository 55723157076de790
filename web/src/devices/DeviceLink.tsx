import { Link } from "wouter";
import { Icon } from "../components/Icon.tsx";
import { visuallyHidden } from "../styles/classNames.ts";
import classes from "./DeviceTable.module.css";
import type { DeviceView } from "./deviceView.ts";

/** A device's name as a link to its page, with marks for a pin and a hold. */
export function DeviceLink({ view }: { view: DeviceView }) {
  return (
    <Link href={`/devices/${view.id}`} className={classes.link}>
      <span className={classes.linkName} title={view.name}>{view.name}</span>
      {view.pinned && <Icon name="pin" size={14} />}
      {view.pinned && <span className={visuallyHidden}>, pinned</span>}
      {view.held && <Icon name="hand" size={14} />}
      {view.held && <span className={visuallyHidden}>, held</span>}
    </Link>
  );
}
