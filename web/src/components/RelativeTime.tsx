import { ago, clock } from "../format/time.ts";
import { numbers, soft } from "../styles/classNames.ts";
import { useNow } from "./useNow.ts";

/** "12 s ago", kept current by the page's one timer; the exact time is in the tooltip. */
export function RelativeTime({ at }: { at: string | null | undefined }) {
  const now = useNow();
  if (!at) return <span className={soft}>never</span>;
  return (
    <time dateTime={at} title={clock(at)} className={numbers} style={{ whiteSpace: "nowrap" }}>
      {ago(at, now)}
    </time>
  );
}
