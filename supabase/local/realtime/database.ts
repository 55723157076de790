import { postgres, type Sql } from "./deps.ts";

/** A pool as the superuser; every session in UTC, as `realtime.messages` means its timestamps. */
export function pool(url: string, name: string, max: number, statementTimeoutMs = 0): Sql {
  return postgres(url, {
    max,
    onnotice: () => {},
    // postgres.js ends connections after 30 to 60 minutes otherwise; on one machine that only costs.
    max_lifetime: null,
    idle_timeout: 60,
    connection: {
      application_name: name,
      TimeZone: "UTC",
      statement_timeout: statementTimeoutMs,
      // A plan kept from when a table was empty scans it whole once it is not: joins of a thousand devices
      // would take ten times as long until the next analyze. Planning anew costs half a millisecond.
      plan_cache_mode: "force_custom_plan",
    },
  });
}

/** The SQLSTATE of a refusal by PostgreSQL, or null when it never got to answer. */
export function sqlState(error: unknown): string | null {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) ? code : null;
}

export function errorText(error: unknown): string {
  return error instanceof Error
    ? error.message || String((error as { code?: unknown }).code ?? error.name)
    : String(error);
}

/** Shutting down and bad luck: SQLSTATE classes after which the same query may well work. */
export function isConnectionTrouble(error: unknown): boolean {
  const state = sqlState(error);
  return state === null || state.startsWith("08") || state.startsWith("57P") || state.startsWith("53");
}

/** Makes the day's and the next days' partitions of `realtime.messages`, drops those past 72 hours. */
export async function maintainPartitions(sql: Sql): Promise<void> {
  await sql`select _realtime.maintain_message_partitions()`;
}
