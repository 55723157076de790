// Every outside dependency of the Realtime endpoint, pinned, in one place.
export { default as postgres } from "npm:postgres@3.4.9";
export { compactVerify, SignJWT } from "npm:jose@6.2.18";
import type { Sql as PostgresSql } from "npm:postgres@3.4.9";

// deno-lint-ignore ban-types
export type Sql = PostgresSql<{}>;
