import type { Sql } from "./deps.ts";
import { errorText, isConnectionTrouble, maintainPartitions, sqlState } from "./database.ts";
import type { Claims } from "./jwt.ts";
import type { Limits } from "./limits.ts";

/** Whose permission is checked, for which topic. */
export interface Caller {
  topic: string;
  claims: Claims;
  /** The `x-…` headers of the request that opened the socket. */
  headers: Record<string, string>;
}

/** Null: not checked. */
export interface Permissions {
  broadcast: boolean;
  presence: boolean | null;
}

export type AuthorizeFault = "policy" | "canceled" | "partition" | "pool" | "database";

/** Why a policy gave no answer. `policy`: its SQL failed, which hosted treats as a refusal. */
export class AuthorizeError extends Error {
  constructor(readonly fault: AuthorizeFault, message: string) {
    super(message);
  }
}

/** Carries a result out of a transaction that must not commit. */
class RollBack<T> {
  constructor(readonly result: T) {}
}

type Extension = "broadcast" | "presence";

/**
 * Asks the row-level security of `realtime.messages` what a caller may do, exactly as hosted Realtime does:
 * a probe row, the caller's role and claims, and a transaction that is always rolled back. Nothing is cached
 * here; a channel keeps its answer until it joins again or gets another token.
 */
export class Authorizer {
  #pending = 0;

  constructor(private readonly sql: Sql, private readonly limits: Limits) {}

  /** What the caller may read: which of the probe rows, inserted as the superuser, its role can see. */
  read(caller: Caller, presence: boolean): Promise<Permissions> {
    return this.#ask(async () => {
      const probes = new Map<Extension, string>([["broadcast", crypto.randomUUID()]]);
      if (presence) probes.set("presence", crypto.randomUUID());
      const rows = [...probes].map(([extension, id]) => ({ id, topic: caller.topic, extension }));
      const ids = [...probes.values()];
      const seen = await this.#rolledBack(async (sql) => {
        // Sent together, answered in order: one round trip instead of three.
        const [, , visible] = await Promise.all([
          sql`insert into realtime.messages ${sql(rows, "id", "topic", "extension")}`,
          become(sql, caller),
          // Probe rows bear the time of this transaction: one partition is looked at, not all of them.
          sql<{ id: string }[]>`
            select id::text from realtime.messages
            where id = any(${ids}::uuid[]) and inserted_at = localtimestamp`,
        ]);
        return new Set(visible.map((row) => row.id));
      });
      return {
        broadcast: seen.has(probes.get("broadcast")!),
        presence: presence ? seen.has(probes.get("presence")!) : null,
      };
    });
  }

  /** What the caller may send: which rows its role may insert. */
  write(caller: Caller): Promise<{ broadcast: boolean; presence: boolean }> {
    return this.#ask(() =>
      this.#rolledBack(async (sql) => {
        await become(sql, caller);
        return {
          broadcast: await mayInsert(sql, caller.topic, "broadcast"),
          presence: await mayInsert(sql, caller.topic, "presence"),
        };
      })
    );
  }

  async #ask<T>(question: () => Promise<T>): Promise<T> {
    if (this.#pending >= this.limits.authorizationQueue) {
      throw new AuthorizeError("pool", "Please increase your connection pool size");
    }
    this.#pending++;
    try {
      return await question().catch(async (error) => {
        // The day's partition is missing, for example because this machine slept through midnight: create it, retry.
        if (sqlState(error) !== "23514") throw error;
        await maintainPartitions(this.sql);
        return await question();
      });
    } catch (error) {
      throw explained(error);
    } finally {
      this.#pending--;
    }
  }

  async #rolledBack<T>(work: (sql: Sql) => Promise<T>): Promise<T> {
    try {
      await this.sql.begin(async (sql) => {
        throw new RollBack(await work(sql as unknown as Sql));
      });
    } catch (thrown) {
      if (thrown instanceof RollBack) return thrown.result as T;
      throw thrown;
    }
    throw new Error("a policy check must end in a rollback");
  }
}

function become(sql: Sql, { topic, claims, headers }: Caller): PromiseLike<unknown> {
  // `set role none` would restore the superuser, which passes every policy.
  if (claims.role === "none") throw new AuthorizeError("policy", 'role "none" does not exist');
  const sub = typeof claims.sub === "string" ? claims.sub : "";
  return sql`
    select set_config('role', ${claims.role}, true),
           set_config('realtime.topic', ${topic}, true),
           set_config('request.jwt.claims', ${JSON.stringify(claims)}, true),
           set_config('request.jwt.claim.sub', ${sub}, true),
           set_config('request.jwt.claim.role', ${claims.role}, true),
           set_config('request.headers', ${JSON.stringify(headers)}, true)`;
}

async function mayInsert(sql: Sql, topic: string, extension: Extension): Promise<boolean> {
  const transaction = sql as unknown as { savepoint<T>(work: (sql: Sql) => Promise<T>): Promise<T> };
  try {
    // No `returning`: that would ask the read policy as well.
    await transaction.savepoint((inner) =>
      inner`insert into realtime.messages (topic, extension) values (${topic}, ${extension})`
    );
    return true;
  } catch (error) {
    if (sqlState(error) === "42501") return false;
    throw error;
  }
}

function explained(error: unknown): AuthorizeError {
  if (error instanceof AuthorizeError) return error;
  switch (sqlState(error)) {
    case "57014":
      return new AuthorizeError("canceled", errorText(error));
    case "23514":
      return new AuthorizeError("partition", "Realtime was unable to find the expected messages partition");
  }
  if (isConnectionTrouble(error)) {
    return new AuthorizeError("database", "Realtime was unable to connect to the project database");
  }
  return new AuthorizeError("policy", errorText(error));
}
