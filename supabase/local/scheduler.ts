/** Stands in for pg_cron: calls `private.tick(now())` as `postgres` every ten seconds, if it exists. */
import postgres from "postgres";

const EVERY_MS = 10_000;
const RETRY_MS = 1_000;

export interface Scheduler {
  /** The last failure, or null. */
  lastError(): string | null;
  close(): Promise<void>;
}

export function startScheduler(url: string, log: (line: string) => void): Scheduler {
  const sql = postgres(url, { max: 1, onnotice() {}, connection: { application_name: "fleet-scheduler" } });
  let lastError: string | null = null;
  let running: Promise<void> | null = null;

  async function tick() {
    try {
      const [{ present }] =
        await sql`select to_regprocedure('private.tick(timestamptz)') is not null as present`;
      if (present) await sql`select private.tick(now())`;
      if (lastError !== null) log("scheduler: working again");
      lastError = null;
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      // Once a failure, not every ten seconds.
      if (text !== lastError) log(`scheduler: private.tick failed: ${text}`);
      lastError = text;
    }
  }

  // One after the other: a slow tick is not overtaken by the next one.
  let timer: ReturnType<typeof setTimeout> | undefined;
  let closed = false;
  const next = () => {
    running = tick().finally(() => {
      if (!closed) timer = setTimeout(next, lastError === null ? EVERY_MS : RETRY_MS);
    });
  };
  next();
  return {
    lastError: () => lastError,
    async close() {
      closed = true;
      clearTimeout(timer);
      await running;
      await sql.end({ timeout: 5 });
    },
  };
}
