// Every outside dependency of the Realtime endpoint in one place; ../deno.json pins them.
export { default as postgres } from "postgres";
export { compactVerify, SignJWT } from "jose";
import type { Sql as PostgresSql } from "postgres";

// deno-lint-ignore ban-types
export type Sql = PostgresSql<{}>;
