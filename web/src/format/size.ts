/** Sizes and shares as people read them. */

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** Bytes to "1.4 GB" (powers of 1000, as disks are sold). */
export function bytes(count: number): string {
  let size = Math.max(0, count);
  let unit = 0;
  while (size >= 999.5 && unit < UNITS.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 || size >= 99.5 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

/** "1 device", "2 devices". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
