/**
 * Supabase's REST and Auth through @supabase/lite, with the least rights: REST connects as `authenticator`,
 * Auth as `supabase_auth_admin`. docs/decisions/2026-11-23-lite-as-authenticator.md says why.
 */
import { App, type HonoContext, type ServerOptions } from "@supabase/lite";
import { createPostgresConnection, PostgresConnection } from "@supabase/lite/postgres";
import type { AuthApps } from "./auth.ts";
import type { Config } from "./config.ts";
import { asPostgrest } from "./sqlstate.ts";
import { type Catalog, type Parsed, quoteJsonStrings, refuseWholeTable } from "./strictness.ts";

/** Requests that run at the same time; more wait their turn. */
const REST_CONNECTIONS = 40;
const AUTH_CONNECTIONS = 4;

// Lite hands json and jsonb arguments of RPC over as text; its own serializer would quote them once more.
const json = (oid: number) => ({
  to: oid,
  from: [oid],
  serialize: (value: unknown) => typeof value === "string" ? value : JSON.stringify(value),
  parse: (text: string) => JSON.parse(text),
});

const postgresOptions = (max: number) => ({
  max,
  onnotice() {},
  types: { json: json(114), jsonb: json(3802) },
});

const authOptions = () => {
  const options = postgresOptions(AUTH_CONNECTIONS);
  const instant = { to: 1184, from: [1184], serialize: (text: string) => text, parse: rfc3339 };
  // Lite's own connections have time zone UTC, so nothing but +00 arrives.
  return { ...options, types: { ...options.types, timestamptz: instant } };
};

/** PostgreSQL's text of an instant as GoTrue answers it: RFC 3339. The official Python client parses no other form. */
function rfc3339(text: string): string {
  return text.replace(/^(\d{4,}-\d\d-\d\d) (\S+)\+00$/, "$1T$2Z");
}

type Introspection = Awaited<ReturnType<PostgresConnection["introspect"]>>;
type Ast = Parameters<PostgresConnection["onPostgrestAST"]>[0];
type ViewOptions = Awaited<ReturnType<PostgresConnection["viewOptionsMetadata"]>>;

/** What Lite says about a caller. */
interface Caller {
  auth?: { role?: string; uid?: unknown; jwt?: unknown };
  storage?: { operation?: unknown };
}

/** Runs SQL in the transaction of a request. */
interface Transaction {
  executeQuery(query: unknown): Promise<unknown>;
}

// As PostgREST: all in one statement, with the timeouts of the role, which a role that is only switched to does not
// bring along. A setting for this database comes last and wins.
const BECOME = `
  select (
    select count(set_config(split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1), true))
    from (
      select setting
      from pg_db_role_setting s, unnest(s.setconfig) setting
      where s.setrole = to_regrole(quote_ident($1))
        and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
        and setting like '%\\_timeout=%'
      order by s.setdatabase
    ) settings
  ),
  set_config('request.jwt.claim.sub', $2, true),
  set_config('request.jwt.claim.role', $1, true),
  set_config('request.jwt.claims', $3, true),
  set_config('storage.operation', $4, true),
  set_config('role', $1, true)`;

function becomeCaller(transaction: Transaction, { auth, storage }: Caller): Promise<unknown> {
  const parameters = [
    auth?.role || "anon",
    String(auth?.uid ?? ""),
    auth?.jwt ? JSON.stringify(auth.jwt) : "",
    String(storage?.operation ?? ""),
  ];
  const query = { kind: "RawNode", sqlFragments: [BECOME], parameters: [] };
  return transaction.executeQuery({ sql: BECOME, parameters, query, queryId: { queryId: "become" } });
}

/**
 * Requests as `authenticator`. These things differ from Lite's own class: it grants nothing (Lite would GRANT ALL
 * on every table to the API roles and so hide a forgotten grant); it reads the catalog through another role,
 * because `authenticator` by itself sees no tables; it answers every SQLSTATE as PostgREST does; and it is as strict
 * as PostgREST (`strictness.ts`, the timeouts of roles).
 */
class AuthenticatorConnection extends PostgresConnection {
  #catalog: PostgresConnection;

  constructor(url: string, catalog: PostgresConnection) {
    super({ url, postgresOptions: postgresOptions(REST_CONNECTIONS) });
    this.#catalog = catalog;
    // Private in Lite's types, so it cannot be overridden by name: `true` is "row-level security is active, and
    // the roles exist". A test sees to it that no grant appears.
    Object.assign(this, {
      ensureRlsContext: () => Promise.resolve(true),
      applyJwtSessionContext: becomeCaller,
    });
  }

  override async onPostgrestAST(ast: Ast): Promise<Ast> {
    refuseWholeTable(ast as Parsed);
    const checked = await super.onPostgrestAST(ast);
    const catalog = await this.introspect({ useCache: true });
    return quoteJsonStrings(checked as Parsed, catalog as Catalog) as Ast;
  }

  override introspect(options?: { useCache?: boolean }): Promise<Introspection> {
    return this.#catalog.introspect(options);
  }

  override viewOptionsMetadata(name: string, schema: string): Promise<ViewOptions> {
    return this.#catalog.viewOptionsMetadata(name, schema);
  }

  override normalizeDbError(error: unknown) {
    return asPostgrest(super.normalizeDbError(error));
  }

  override async close(): Promise<void> {
    await super.close();
    await this.#catalog.close();
  }
}

/** REST verifies tokens by their signature. Without this, Lite would look each caller up in auth.users as well. */
const noUserLookup: NonNullable<ServerOptions["middlewares"]>[number] = async (context, next) => {
  const service = { repo: { findUserById: () => Promise.resolve(null) } };
  context.set("authService", service as unknown as HonoContext["Variables"]["authService"]);
  await next();
};

export interface Lite {
  /** `/rest/v1` and `/storage/v1` for callers with a key. */
  rest: App;
  /** `/auth/v1`; `auth.ts` stands before them. */
  auth: AuthApps;
  /** The table editor's pages and its keyless requests as `service_role`; never reachable on the API port. */
  editor: App;
  /** Throws if the database does not respond. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

export async function createLite(config: Config): Promise<Lite> {
  const catalog = createPostgresConnection({
    url: config.postgresDbUrl,
    postgresOptions: postgresOptions(2),
  });
  const restConnection = new AuthenticatorConnection(config.restDbUrl, catalog);
  const authConnection = createPostgresConnection({
    url: config.authDbUrl,
    postgresOptions: authOptions(),
  });
  const shared = {
    api: { schemas: ["public"] },
    // The history belongs to fleetctl's migration runner.
    db: { migrations: { enabled: false } },
    auth: {
      enabled: true,
      jwt_secret: config.jwtSecret,
      publishable_key: config.publishableKey,
      secret_key: config.secretKey,
      minimum_password_length: 8,
      email: { enable_confirmations: false },
    },
  };
  const rest = new App({
    ...shared,
    connection: restConnection,
    options: {
      server: { admin: false, disableStudio: true, disableFallback: true, middlewares: [noUserLookup] },
    },
  });
  const auth = (signsUp: boolean) =>
    new App({
      ...shared,
      auth: { ...shared.auth, enable_signup: signsUp },
      connection: authConnection,
      options: { server: { admin: false, disableStudio: true, disableFallback: true } },
    });
  const authApps = { closed: auth(false), open: auth(true) };
  const editor = new App({
    ...shared,
    studio: { enabled: true },
    connection: restConnection,
    options: { server: { admin: true, middlewares: [noUserLookup] } },
  });
  await authApps.open.ensureSystemSchema();
  // Lite swallows the errors of that step; schema `auth` itself belongs to bootstrap.sql, so some are expected.
  const [{ users }] = await authConnection.driver`select to_regclass('auth.users') is not null as users`;
  if (!users) throw new Error("the tables of schema auth could not be created");
  return {
    rest,
    auth: authApps,
    editor,
    async ping() {
      await restConnection.driver`select 1`;
    },
    async close() {
      await Promise.all([restConnection.close(), authConnection.close()]);
    },
  };
}
