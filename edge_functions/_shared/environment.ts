// What a function reads from its environment, at its first request and not at import, so that a server which
// loads several functions may set it up first. A missing value is an error.

import { type Database, restDatabase } from "./database.ts";

export function requiredVariable(name: string): string {
  const value = Deno.env.get(name);
  if (!value) throw new Error(`${name} is not set; set it for the edge functions (docs/usage/enrollment.md)`);
  return value;
}

/** The database as this project's secret key may call it. */
export function databaseFromEnvironment(): Database {
  return restDatabase(requiredVariable("SUPABASE_URL"), secretKey());
}

function secretKey(): string {
  const keys = Deno.env.get("SUPABASE_SECRET_KEYS");
  if (!keys) return requiredVariable("SUPABASE_SERVICE_ROLE_KEY");
  const key = JSON.parse(keys).default;
  if (typeof key !== "string") throw new Error('SUPABASE_SECRET_KEYS has no "default" key');
  return key;
}

/** Every publishable key of this project, and its legacy anon key while it has one. */
export function publishableKeysFromEnvironment(): string[] {
  const keys = Object.values(JSON.parse(Deno.env.get("SUPABASE_PUBLISHABLE_KEYS") || "{}"));
  const legacy = Deno.env.get("SUPABASE_ANON_KEY");
  const all = [...keys, legacy].filter((key): key is string => typeof key === "string" && key !== "");
  return all.length > 0 ? all : [requiredVariable("SUPABASE_PUBLISHABLE_KEYS")];
}
