import { RelativeTime } from "../components/RelativeTime.tsx";
import { soft, visuallyHidden } from "../styles/classNames.ts";
import { DeviceLink } from "./DeviceLink.tsx";
import type { ListedView } from "./deviceList.ts";
import classes from "./DeviceTable.module.css";
import type { Picking } from "./picking.ts";
import { StateLabel } from "./StateLabel.tsx";

export const ROW_PX = 45;

interface Props {
  /** Undefined while its page is read. */
  view: ListedView | undefined;
  index: number;
  picking: Picking | null;
  columns: number;
}

/** One line of the table. */
export function DeviceTableRow({ view, index, picking, columns }: Props) {
  if (!view) {
    return (
      <tr aria-rowindex={index + 2} className={classes.row}>
        <td colSpan={columns + (picking ? 1 : 0)} className={soft}>Loading…</td>
      </tr>
    );
  }
  return (
    <tr aria-rowindex={index + 2} data-device={view.name} className={classes.row}>
      {picking && (
        <td>
          <PickBox view={view} picking={picking} />
        </td>
      )}
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

export function PickBox({ view, picking }: { view: ListedView; picking: Picking }) {
  return (
    <input
      type="checkbox"
      className={classes.box}
      aria-label={`Select ${view.name}`}
      checked={picking.isPicked(view.id)}
      onChange={() => picking.toggle(view.id, view.name)}
    />
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
