import { equal } from "../testing/assert.ts";
import { allRows, pieces } from "./paging.ts";

const table = (size: number) => Array.from({ length: size }, (_, index) => String(index).padStart(6, "0"));

/** A server that answers at most `limit` rows, and counts how often it was asked. */
function server(rows: () => string[], limit: number) {
  const asked: (string | null)[] = [];
  const read = (after: string | null) => {
    asked.push(after);
    const rest = rows().filter((row) => after === null || row > after);
    return Promise.resolve({ rows: rest.slice(0, limit), count: after === null ? rest.length : null });
  };
  return { read, asked };
}

Deno.test("every row is read once, just under, at and over the server's limit", async () => {
  for (const size of [0, 999, 1000, 1001, 2500]) {
    const { read } = server(() => table(size), 1000);
    equal(await allRows(read, (row) => row), table(size));
  }
});

Deno.test("a table that fits takes one request", async () => {
  for (const size of [0, 1, 1000]) {
    const { read, asked } = server(() => table(size), 1000);
    await allRows(read, (row) => row);
    equal(asked.length, 1);
  }
});

Deno.test("a row deleted while reading does not shift another one out", async () => {
  let rows = table(2000);
  const { read } = server(() => rows, 1000);
  const seen = await allRows((after) => {
    if (after !== null) rows = rows.filter((row) => row !== "000000");
    return read(after);
  }, (row) => row);
  equal(seen.length, 2000);
});

Deno.test("pieces cover the list without overlap", () => {
  equal(pieces([1, 2, 3, 4, 5], 2), [[1, 2], [3, 4], [5]]);
  equal(pieces([], 2), []);
});
