/** The few line icons of the page, drawn here: an icon package would be many thousand files for these. */
import type { CSSProperties } from "react";

const PATHS = {
  check: ["M4 12.5a8 8 0 1 0 16 0 8 8 0 1 0-16 0", "M8.5 12.7l2.4 2.4 4.6-5"],
  arrows: ["M19 8.5A7.5 7.5 0 0 0 5.4 9.6", "M19 4.5v4h-4", "M5 15.5a7.5 7.5 0 0 0 13.6-1.1", "M5 19.5v-4h4"],
  triangle: ["M12 4.5 21 19.5H3z", "M12 10.2v4", "M12 17v.01"],
  undo: ["M8 5 4 9l4 4", "M4 9h9.5a5.5 5.5 0 0 1 0 11H9"],
  unplugged: ["M8 8v-4", "M16 8v-4", "M6 8h12v3a6 6 0 0 1-12 0z", "M12 17v4", "M4 4l16 16"],
  shield: ["M12 3.5l7 2.6v5.4c0 4.3-2.9 7.3-7 9-4.1-1.7-7-4.7-7-9V6.1z", "M12 8.5v4", "M12 15.5v.01"],
  moon: ["M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z"],
  hourglass: ["M7 4h10", "M7 20h10", "M8 4v3.5l4 4.5-4 4.5V20", "M16 4v3.5L12 12l4 4.5V20"],
  pause: ["M4 12a8 8 0 1 0 16 0 8 8 0 1 0-16 0", "M10 9v6", "M14 9v6"],
  box: ["M4 8.5h16v11H4z", "M3 4.5h18v4H3z", "M10 12.5h4"],
  circle: [
    "M12 4a8 8 0 0 1 2.5.4",
    "M17.8 6.5a8 8 0 0 1 1.9 3.3",
    "M19.9 14a8 8 0 0 1-2.3 3.7",
    "M14.5 19.6a8 8 0 0 1-4.6.1",
    "M6.3 17.6A8 8 0 0 1 4.2 14",
    "M4.3 9.8a8 8 0 0 1 2-3.5",
    "M9.7 4.3 9.5 4.4",
  ],
  stop: ["M8.3 3.5h7.4l5 5v7l-5 5H8.3l-5-5v-7z", "M9 12h6"],
  pin: ["M9 4h6l-1 6 3.5 3.5h-11L10 10z", "M12 13.5V20"],
  hand: [
    "M7 11V6.5a1.5 1.5 0 0 1 3 0V11",
    "M10 10V5a1.5 1.5 0 0 1 3 0v5",
    "M13 10V6a1.5 1.5 0 0 1 3 0v6",
    "M16 9.5a1.5 1.5 0 0 1 3 0V14a6.5 6.5 0 0 1-12.5 2.5L4.2 13a1.5 1.5 0 0 1 2.5-1.6L8 13",
  ],
  search: ["M4.5 10.5a6 6 0 1 0 12 0 6 6 0 1 0-12 0", "M15 15l5 5"],
  up: ["M12 19V6", "M6.5 11 12 5.5l5.5 5.5"],
  down: ["M12 5v13", "M6.5 13l5.5 5.5 5.5-5.5"],
  cross: ["M6 6l12 12", "M18 6 6 18"],
  person: ["M8 8a4 4 0 1 0 8 0 4 4 0 1 0-8 0", "M4.5 20.5a7.5 6.5 0 0 1 15 0"],
  clock: ["M4 12a8 8 0 1 0 16 0 8 8 0 1 0-16 0", "M12 7.5V12l3 2"],
  sun: [
    "M8 12a4 4 0 1 0 8 0 4 4 0 1 0-8 0",
    "M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6 7 7M17 17l1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4",
  ],
  menu: ["M4 7h16", "M4 12h16", "M4 17h16"],
  back: ["M19 12H6", "M11 6.5 5.5 12l5.5 5.5"],
} as const;

export type IconName = keyof typeof PATHS;

/** Decoration: the word next to it carries the meaning, so screen readers skip it. */
export function Icon({ name, size = 18, style }: { name: IconName; size?: number; style?: CSSProperties }) {
  return (
    <svg
      aria-hidden="true"
      focusable="false"
      width={size}
      height={size}
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      strokeWidth={1.9}
      strokeLinecap="round"
      strokeLinejoin="round"
      style={{ display: "block", flex: "none", ...style }}
    >
      {PATHS[name].map((path) => <path key={path} d={path} />)}
    </svg>
  );
}
