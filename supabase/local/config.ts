/** The settings that fleetctl passes to this process, checked once: a missing value fails the start, not a request. */

export interface Config {
  host: string;
  port: number;
  /** 0: off. */
  tableEditorPort: number;
  /** Superuser: Realtime's listener. Never used for a caller's request. */
  dbUrl: string;
  /** `authenticator`: may become the API roles, and has no rights of its own. */
  restDbUrl: string;
  /** `supabase_auth_admin`: the tables in schema `auth`. */
  authDbUrl: string;
  /** `postgres`: the scheduler, as pg_cron runs on hosted. */
  postgresDbUrl: string;
  jwtSecret: string;
  publishableKey: string;
  secretKey: string;
  webDir: string;
  functionsDir: string;
}

export function readConfig(env: (name: string) => string | undefined): Config {
  const text = (name: string): string => {
    const value = env(name);
    if (!value) throw new Error(`${name} is not set; start this server with \`fleetctl up\``);
    return value;
  };
  const port = (name: string): number => {
    const value = Number(text(name));
    if (!Number.isInteger(value) || value < 0 || value > 65535) {
      throw new Error(`${name} is not a port number: ${env(name)}`);
    }
    return value;
  };
  return {
    host: text("FLEET_HOST"),
    port: port("FLEET_PORT"),
    tableEditorPort: port("FLEET_TABLE_EDITOR_PORT"),
    dbUrl: text("FLEET_DB_URL"),
    restDbUrl: text("FLEET_REST_DB_URL"),
    authDbUrl: text("FLEET_AUTH_DB_URL"),
    postgresDbUrl: text("FLEET_POSTGRES_DB_URL"),
    jwtSecret: text("FLEET_JWT_SECRET"),
    publishableKey: text("FLEET_PUBLISHABLE_KEY"),
    secretKey: text("FLEET_SECRET_KEY"),
    webDir: text("FLEET_WEB_DIR"),
    functionsDir: text("FLEET_FUNCTIONS_DIR"),
  };
}
