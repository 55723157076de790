/** Reads whole tables through a server that answers at most so many rows at once (PostgREST: 1000). */

export interface Page<Row> {
  rows: Row[];
  /** How many rows there are from here on; only asked for on the first page. */
  count: number | null;
}

/**
 * All rows, page after page by key, so that rows which come or go meanwhile neither repeat nor shift a page.
 *
 * `read(after)` answers the rows whose key is greater than `after`, in the order of the key. The server's limit
 * need not be known: reading ends when the first page's count is reached or a page is empty.
 */
export async function allRows<Row>(
  read: (after: string | null) => Promise<Page<Row>>,
  key: (row: Row) => string,
): Promise<Row[]> {
  const first = await read(null);
  const rows = [...first.rows];
  const expected = first.count ?? Number.POSITIVE_INFINITY;
  let last = first.rows.at(-1);
  while (last !== undefined && rows.length < expected) {
    const next = await read(key(last));
    rows.push(...next.rows);
    last = next.rows.at(-1);
  }
  return rows;
}

/** Lists in pieces that fit into one address: a PostgREST `in.(…)` filter of UUIDs. */
export function pieces<Item>(items: readonly Item[], size: number): Item[][] {
  const cut: Item[][] = [];
  for (let start = 0; start < items.length; start += size) cut.push(items.slice(start, start + size));
  return cut;
}
