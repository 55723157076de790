/** What PostgREST refuses or reads differently, and Lite's own connection would not. */

/** A request as Lite has parsed it, as far as it matters here. */
export interface Parsed {
  type: string;
  schema?: string;
  from?: string;
  function?: string;
  where?: Record<string, unknown>;
  args?: unknown;
  httpMethod?: string;
  values?: unknown;
}

export interface Catalog {
  columns: { table: string; schema?: string; name: string; type: string }[];
  functions?: { schema: string; name: string; arg_names: string[]; arg_types: string[] }[];
}

/** As `safeupdate`, which hosted Supabase loads for every request: no change of a whole table. */
export function refuseWholeTable({ type, where }: Parsed): void {
  if (type !== "update" && type !== "delete") return;
  if (where && Object.keys(where).length > 0) return;
  const error = new Error(`${type.toUpperCase()} requires a WHERE clause`);
  throw Object.assign(error, { code: "21000", severity: "ERROR" });
}

/**
 * A JSON string stays one. Lite hands text for json and jsonb on as it is, so that the database would parse it: what
 * works here with `"{\"a\": 1}"` instead of `{"a": 1}` would fail on hosted.
 */
export function quoteJsonStrings(parsed: Parsed, catalog: Catalog): Parsed {
  const schema = parsed.schema ?? "public";
  // In an address, everything is text, and PostgREST parses it as well.
  if (parsed.type === "rpc" && parsed.httpMethod?.toUpperCase() !== "GET") {
    const json = new Set<string>();
    for (const candidate of catalog.functions ?? []) {
      if (candidate.schema !== schema || candidate.name !== parsed.function) continue;
      candidate.arg_types.forEach((type, at) => isJson(type) && json.add(candidate.arg_names[at]));
    }
    return { ...parsed, args: quoted(parsed.args, json, JSON.stringify) };
  }
  if (parsed.values === undefined) return parsed;
  const columns = catalog.columns.filter((column) =>
    column.table === parsed.from && (column.schema ?? "public") === schema && isJson(column.type)
  );
  // Twice: for columns, Lite parses text itself, before the database does.
  const twice = (text: string) => JSON.stringify(JSON.stringify(text));
  return { ...parsed, values: quoted(parsed.values, new Set(columns.map(({ name }) => name)), twice) };
}

function isJson(type: string): boolean {
  return /^(pg_catalog\.)?jsonb?$/i.test(type);
}

function quoted(value: unknown, names: Set<string>, quote: (text: string) => string): unknown {
  if (Array.isArray(value)) return value.map((one) => quoted(one, names, quote));
  if (typeof value !== "object" || value === null || names.size === 0) return value;
  const entries = Object.entries(value).map(([name, one]) => [
    name,
    names.has(name) && typeof one === "string" ? quote(one) : one,
  ]);
  return Object.fromEntries(entries);
}
