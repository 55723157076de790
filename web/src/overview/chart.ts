/** A stacked area: from series to bands that lie on each other, with axes. Apart from adoption.ts, because d3 is lazy. */
import { scaleLinear, scaleUtc } from "d3-scale";
import { area, curveMonotoneX, stack } from "d3-shape";
import type { Adoption } from "./adoption.ts";

export interface Band {
  name: string;
  path: string;
  /** Where its label goes: the middle of its last day, if it is thick enough for one. */
  label: { x: number; y: number } | null;
}

export interface Chart {
  bands: Band[];
  xTicks: { x: number; word: string }[];
  yTicks: { y: number; word: string }[];
}

export interface Frame {
  width: number;
  height: number;
  top: number;
  right: number;
  bottom: number;
  left: number;
}

/** Bands and axes in a frame of these pixels; null if there is nothing to draw. */
export function chartOf({ days, series }: Adoption, frame: Frame): Chart | null {
  const first = days[0];
  const last = days.at(-1);
  if (first === undefined || last === undefined || days.length < 2 || series.length === 0) return null;
  const rows = days.map((day, index) => ({ day: new Date(`${day}T00:00:00Z`), index }));
  const stacked = stack<typeof rows[number], number>()
    .keys(series.map((_, key) => key))
    .value((row, key) => series[key]?.devices[row.index] ?? 0)(rows);
  const most = Math.max(1, ...stacked.flatMap((layer) => layer.map(([, upper]) => upper)));
  const x = scaleUtc([new Date(`${first}T00:00:00Z`), new Date(`${last}T00:00:00Z`)], [
    frame.left,
    frame.width - frame.right,
  ]);
  const y = scaleLinear([0, most], [frame.height - frame.bottom, frame.top]).nice(4);
  const shape = area<typeof stacked[number][number]>()
    .x((point) => x(point.data.day))
    .y0(([lower]) => y(lower))
    .y1(([, upper]) => y(upper))
    .curve(curveMonotoneX);
  const dayWord = x.tickFormat(5, "%b %-d");
  return {
    bands: stacked.map((layer) => {
      const [lower, upper] = layer.at(-1) ?? [0, 0];
      return {
        name: series[layer.key]?.name ?? "?",
        path: shape(layer) ?? "",
        label: Math.abs(y(lower) - y(upper)) >= 14
          ? { x: frame.width - frame.right + 6, y: (y(lower) + y(upper)) / 2 }
          : null,
      };
    }),
    xTicks: x.ticks(5).map((tick) => ({ x: x(tick), word: dayWord(tick) })),
    yTicks: y.ticks(4).filter(Number.isInteger).map((tick) => ({
      y: y(tick),
      word: tick.toLocaleString("en"),
    })),
  };
}
