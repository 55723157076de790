import { useNow } from "./useNow.ts";
import { ago, clock } from "../format/time.ts";

/** "12 s ago", kept true by the page's one ticker; the exact time is in the tooltip. */
export function Ago({ at }: { at: string | null | undefined }) {
  const now = useNow();
  if (!at) return <span className="soft">never</span>;
  return (
    <time dateTime={at} title={clock(at)} className="numbers" style={{ whiteSpace: "nowrap" }}>
      {ago(at, now)}
    </time>
  );
}
