/** Keeps the newest of two answers about the same rows: a slow old answer must not undo a quick new one. */

/** `incoming` over `current`: by key, the row with the later stamp wins; rows only in one of them stay. */
export function mergeNewest<Row>(
  current: readonly Row[],
  incoming: readonly Row[],
  key: (row: Row) => string,
  stamp: (row: Row) => string,
): Row[] {
  const newer = new Map(incoming.map((row) => [key(row), row]));
  const merged = current.map((row) => {
    const candidate = newer.get(key(row));
    newer.delete(key(row));
    return candidate && isNewer(stamp(candidate), stamp(row)) ? candidate : row;
  });
  return [...merged, ...newer.values()];
}

/**
 * A whole list that was read, over what is shown now: rows that the list lacks are gone, rows that changed or came
 * after the list was read keep their newer form.
 */
export function replaceAll<Row>(
  current: readonly Row[],
  list: readonly Row[],
  key: (row: Row) => string,
  stamp: (row: Row) => string,
): Row[] {
  const shown = new Map(current.map((row) => [key(row), row]));
  let latest = "";
  const merged = list.map((row) => {
    const known = shown.get(key(row));
    shown.delete(key(row));
    if (latest === "" || isNewer(stamp(row), latest)) latest = stamp(row);
    return known && isNewer(stamp(known), stamp(row)) ? known : row;
  });
  const came = latest === "" ? [] : [...shown.values()].filter((row) => isNewer(stamp(row), latest));
  return [...merged, ...came];
}

/** Postgres stamps carry microseconds, which Date drops: compare the instants first, then the text. */
function isNewer(a: string, b: string): boolean {
  const difference = Date.parse(a) - Date.parse(b);
  return difference === 0 ? a > b : difference > 0;
}
