import { RelativeTime } from "../components/RelativeTime.tsx";
import { soft, visuallyHidden } from "../styles/classNames.ts";
import { DeviceLink } from "./DeviceLink.tsx";
import classes from "./DeviceTable.module.css";
import type { DeviceView } from "./deviceView.ts";
import { StateLabel } from "./StateLabel.tsx";

export const ROW_PX = 45;

/** One line of the table. */
export function DeviceTableRow({ view, index }: { view: DeviceView; index: number }) {
  return (
    <tr aria-rowindex={index + 2} data-device={view.name} style={{ height: ROW_PX }}>
      <th scope="row">
        <DeviceLink view={view} />
      </th>
      <td>
        <StateLabel state={view.shown} />
      </td>
      <td>{view.role}</td>
      <td>{view.segment}</td>
      <td>{view.branch}</td>
      <td>{view.current ?? <Dash meaning="none" />}</td>
      <td>{view.target ?? <Dash meaning="same" />}</td>
      <td>
        <RelativeTime at={view.contactAt} />
      </td>
      <td className={classes.why} title={view.why}>{view.why}</td>
    </tr>
  );
}

/** An empty cell: a dash, and what it means for screen readers. */
function Dash({ meaning }: { meaning: string }) {
  return (
    <span className={soft}>
      <span aria-hidden="true">–</span>
      <span className={visuallyHidden}>{meaning}</span>
    </span>
  );
}
