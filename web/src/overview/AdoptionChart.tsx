/** Version adoption as a stacked area, and the same numbers as a table. A chunk of its own: most of it is d3. */
import { Text } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { useId } from "react";
import { soft } from "../styles/classNames.ts";
import type { Adoption } from "./adoption.ts";
import classes from "./AdoptionChart.module.css";
import { chartOf } from "./chart.ts";

const HEIGHT = 220;

export default function AdoptionChart({ adoption }: { adoption: Adoption }) {
  const { ref, width } = useElementSize<HTMLDivElement>();
  const title = useId();
  const frame = { width: Math.max(280, width), height: HEIGHT, top: 8, right: 92, bottom: 24, left: 44 };
  const chart = chartOf(adoption, frame);
  return (
    <div ref={ref} className={classes.chart}>
      {chart
        ? (
          <svg
            width="100%"
            height={HEIGHT}
            viewBox={`0 0 ${frame.width} ${HEIGHT}`}
            role="img"
            aria-labelledby={title}
          >
            <title id={title}>
              Devices by the release they ran, day by day; the table below has the numbers
            </title>
            {chart.yTicks.map(({ y, word }) => (
              <g key={word}>
                <line x1={frame.left} x2={frame.width - frame.right} y1={y} y2={y} className={classes.line} />
                <text
                  x={frame.left - 6}
                  y={y}
                  className={classes.tick}
                  textAnchor="end"
                  dominantBaseline="central"
                >
                  {word}
                </text>
              </g>
            ))}
            {chart.bands.map(({ name, path, label }, index) => (
              <g key={name} className={classes[`band${index % 9}`]}>
                <path d={path} className={classes.band}>
                  <title>{name}</title>
                </path>
                {label && (
                  <text x={label.x} y={label.y} className={classes.label} dominantBaseline="central">
                    {name.length > 14 ? `${name.slice(0, 13)}…` : name}
                  </text>
                )}
              </g>
            ))}
            {chart.xTicks.map(({ x, word }) => (
              <text key={word} x={x} y={HEIGHT - 6} className={classes.tick} textAnchor="middle">{word}</text>
            ))}
          </svg>
        )
        : (
          <Text size="sm" className={soft}>
            {adoption.series.length === 0
              ? "No device runs a release yet."
              : "The chart begins tomorrow: it has one value a day. Today's numbers are in the table."}
          </Text>
        )}
      {adoption.series.length > 0 && <AdoptionTable adoption={adoption} />}
    </div>
  );
}

function AdoptionTable({ adoption: { days, series } }: { adoption: Adoption }) {
  const shown = [...series].reverse();
  return (
    <details className={classes.details}>
      <summary>The same as a table</summary>
      <div className={classes.scroll} tabIndex={0} role="region" aria-label="Devices by release and day">
        <table className={classes.table}>
          <thead>
            <tr>
              <th scope="col">Day (UTC)</th>
              {shown.map(({ name }) => <th key={name} scope="col">{name}</th>)}
            </tr>
          </thead>
          <tbody>
            {days.map((day, index) => (
              <tr key={day}>
                <th scope="row">{day}</th>
                {shown.map(({ name, devices }) => <td key={name}>{devices[index]?.toLocaleString("en")}</td>)}
              </tr>
            )).reverse()}
          </tbody>
        </table>
      </div>
    </details>
  );
}
