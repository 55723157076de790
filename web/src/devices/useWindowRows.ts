import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { type RefObject, useLayoutEffect, useRef, useState } from "react";

export interface WindowRows {
  /** The element that holds the rows: its distance from the page's top is where the first one starts. */
  body: RefObject<HTMLDivElement | null>;
  /** The rows to draw. */
  items: readonly { index: number; key: string | number | bigint }[];
  /** Heights that stand for the rows not drawn above and below, px. */
  before: number;
  after: number;
  /** For rows whose height is not known: measures a drawn one. */
  measure: (element: Element | null) => void;
}

/** Which of `count` rows of about `rowPx` are on the screen, or near it, as the window scrolls. */
export function useWindowRows(
  count: number,
  rowPx: number,
  keyOf: (index: number) => string | number,
): WindowRows {
  const body = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  useLayoutEffect(() => {
    const at = body.current ? body.current.getBoundingClientRect().top + globalThis.scrollY : 0;
    setTop((was) => (Math.abs(was - at) < 1 ? was : at));
  });
  const rows = useWindowVirtualizer({
    count,
    estimateSize: () => rowPx,
    getItemKey: keyOf,
    overscan: 12,
    scrollMargin: top,
  });
  const items = rows.getVirtualItems();
  return {
    body,
    items,
    before: (items[0]?.start ?? top) - top,
    after: Math.max(0, rows.getTotalSize() - ((items.at(-1)?.end ?? top) - top)),
    measure: rows.measureElement,
  };
}
