/**
 * Writes web/src/data/generated/database.types.ts from a database's catalog, as `supabase gen types typescript` does: the same
 * engine, without Docker and without the CLI.
 *
 *   FLEET_DB_URL=postgresql://… deno task types            write the file
 *   FLEET_DB_URL=postgresql://… deno task types --check    fail if the file differs from the schema
 */
import { generateTypescript, introspect, sortGeneratorMetadata } from "@supabase/postgrest-typegen";
import pg from "pg";

const TARGET = new URL("../../src/data/generated/database.types.ts", import.meta.url);
const HEADER = "// Made from the schema by `deno task types`; do not edit.\n";

/** The text of database.types.ts for the `public` schema of the database at `url`. */
async function typesOf(url: string): Promise<string> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const metadata = await introspect(client, { includedSchemas: ["public"] });
    const types = await generateTypescript(sortGeneratorMetadata(metadata), {
      postgrestVersion: "14.1",
      detectOneToOneRelationships: true,
      defaultSchema: "public",
    });
    return HEADER + types;
  } finally {
    await client.end();
  }
}

const url = Deno.env.get("FLEET_DB_URL");
if (!url) {
  console.error(
    "FLEET_DB_URL is not set. Try: FLEET_DB_URL=$(fleetctl status --json | jq -r .db_url) deno task types",
  );
  Deno.exit(2);
}
const made = await typesOf(url);
if (Deno.args.includes("--check")) {
  const kept = await Deno.readTextFile(TARGET);
  if (kept !== made) {
    console.error("web/src/data/generated/database.types.ts is older than the schema. Try: deno task types");
    Deno.exit(1);
  }
} else {
  await Deno.writeTextFile(TARGET, made);
}
