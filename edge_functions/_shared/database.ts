// The functions' only way to the data: SQL functions that service_role alone may call, over REST with the
// project's secret key. The callers here are not signed in yet, so there is no token of theirs to pass on.

import { Refusal } from "./http.ts";

export interface Database {
  /** Call a SQL function by name with named arguments; throws Refusal 503 when that fails for any reason. */
  rpc(name: string, args: Record<string, unknown>): Promise<unknown>;
}

const TIMEOUT_MS = 10_000;

export function restDatabase(url: string, secretKey: string): Database {
  const headers: Record<string, string> = { apikey: secretKey, "content-type": "application/json" };
  // A legacy service_role key is a JWT and must also be the bearer; sb_secret_ keys must not be.
  if (!secretKey.startsWith("sb_")) headers.authorization = `Bearer ${secretKey}`;
  return {
    async rpc(name, args) {
      try {
        const response = await fetch(`${url.replace(/\/+$/, "")}/rest/v1/rpc/${name}`, {
          method: "POST",
          headers,
          body: JSON.stringify(args),
          signal: AbortSignal.timeout(TIMEOUT_MS),
        });
        const text = await response.text();
        if (response.ok) return JSON.parse(text);
        console.error(`${name}: REST responded with ${response.status}: ${text.slice(0, 500)}`);
      } catch (error) {
        console.error(`${name}: ${error instanceof Error ? error.message : "unknown error"}`);
      }
      throw new Refusal(503, "unavailable", "The database did not respond.", "Try again in a minute.", 30);
    },
  };
}
