/** Which HTTP status an error of the database gets: PostgREST's table, of which Lite has only a part. */

interface DatabaseError {
  code?: unknown;
  message?: string;
  detail?: string | null;
  hint?: string | null;
}

/** PostgREST, docs/references/errors: the first prefix that fits. */
const STATUS: [prefix: string, status: number][] = [
  ["08", 503],
  ["09", 500],
  ["0L", 403],
  ["0P", 403],
  ["25", 500],
  ["28", 403],
  ["2D", 500],
  ["38", 500],
  ["39", 500],
  ["3B", 500],
  ["40", 500],
  ["53400", 500],
  ["53", 503],
  ["54", 500],
  ["55", 500],
  ["57P01", 503],
  ["57", 500],
  ["58", 500],
  ["F0", 500],
  ["HV", 500],
  ["P0001", 400],
  ["P0", 500],
  ["XX", 500],
];

/** What Lite answers itself as PostgREST would: custom statuses, rights, missing or doubled things, bad values. */
const LITE_KNOWS = /^(PGRST|PT...|42...|21...|22...|23502|23503|23505|25006)$/;

/** The status of an SQLSTATE; 400 for what the table does not name, such as a violated check (23514). */
export function statusOf(sqlstate: string): number {
  return STATUS.find(([prefix]) => sqlstate.startsWith(prefix))?.[1] ?? 400;
}

/** The same error in the form in which Lite lets status and body through: `raise sqlstate 'PGRST'`. */
export function asPostgrest<T>(error: T): T {
  const { code, message, detail, hint } = (error ?? {}) as DatabaseError;
  if (typeof code !== "string" || !/^[0-9A-Z]{5}$/.test(code)) return error;
  if (LITE_KNOWS.test(code)) return inOneLine(error, code, message);
  const body = JSON.stringify({ code, message: message ?? "", details: detail ?? null, hint: hint ?? null });
  const answered = Object.assign(new Error(body), {
    code: "PGRST",
    detail: JSON.stringify({ status: statusOf(code), headers: {} }),
  });
  return inOneLine(answered, code, message) as T;
}

/** Lite prints each error with its stack; a refused request is one line of a log, not twenty. */
function inOneLine<T>(error: T, code: string, message = ""): T {
  Object.defineProperty(error, Symbol.for("Deno.customInspect"), {
    value: () => `${new Date().toISOString()} database: ${code} ${message}`,
  });
  return error;
}
