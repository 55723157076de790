/** Times and durations as people read them. `now` is always an argument: `useNow` owns the clock. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** "12 s ago". A time in the future (a clock that runs ahead) is "just now". */
export function ago(at: string | null | undefined, now: number): string {
  if (!at) return "never";
  const age = now - Date.parse(at);
  if (Number.isNaN(age)) return "unknown";
  if (age < 3 * SECOND) return "just now";
  return `${span(age)} ago`;
}

/** The largest whole unit: "59 s", "59 min", "23 h", "12 d". Milliseconds in. */
export function span(ms: number): string {
  const size = Math.max(0, ms);
  if (size < MINUTE) return `${Math.floor(size / SECOND)} s`;
  if (size < HOUR) return `${Math.floor(size / MINUTE)} min`;
  if (size < 2 * DAY) return `${Math.floor(size / HOUR)} h`;
  return `${Math.floor(size / DAY)} d`;
}

/** How long something took: "850 ms", "4.2 s", "3 min 20 s", "2 h 5 min". Milliseconds in. */
export function took(ms: number): string {
  const size = Math.max(0, Math.round(ms));
  if (size < SECOND) return `${size} ms`;
  if (size < MINUTE) return `${(size / SECOND).toFixed(1)} s`;
  if (size < HOUR) return pair(size, MINUTE, "min", SECOND, "s");
  return pair(size, HOUR, "h", MINUTE, "min");
}

function pair(ms: number, big: number, bigName: string, small: number, smallName: string): string {
  const rest = Math.floor((ms % big) / small);
  return `${Math.floor(ms / big)} ${bigName}${rest ? ` ${rest} ${smallName}` : ""}`;
}

/** "2026-11-23 19:26:05", in the browser's time zone. */
export function clock(at: string | null | undefined): string {
  if (!at) return "never";
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "unknown";
  const two = (part: number) => String(part).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ` +
    `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
