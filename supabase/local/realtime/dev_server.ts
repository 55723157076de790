/**
 * The Realtime endpoint alone, next to any Postgres that has `bootstrap.sql`: for tests that need their own
 * limits and for benchmarks. Prints one JSON line with its address when it is ready; SIGTERM stops it,
 * and so does the end of its standard input: it must not outlive a test run that was killed.
 *
 *   FLEET_DB_URL=… FLEET_JWT_SECRET=… FLEET_PUBLISHABLE_KEY=… FLEET_SECRET_KEY=… \
 *   FLEET_REALTIME_LIMITS='{"maxConnections":2}' deno run -A dev_server.ts
 */
import { createRealtime } from "./mod.ts";

function required(name: string): string {
  const value = Deno.env.get(name);
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

const realtime = await createRealtime({
  dbUrl: required("FLEET_DB_URL"),
  jwtSecret: required("FLEET_JWT_SECRET"),
  publishableKey: required("FLEET_PUBLISHABLE_KEY"),
  secretKey: required("FLEET_SECRET_KEY"),
  limits: JSON.parse(Deno.env.get("FLEET_REALTIME_LIMITS") ?? "{}"),
  log: (line) => console.error(line),
});
const server = Deno.serve({
  hostname: "127.0.0.1",
  port: Number(Deno.env.get("FLEET_PORT") ?? 0),
  onListen: ({ port }) => console.log(JSON.stringify({ url: `http://127.0.0.1:${port}` })),
}, (req) => realtime.handle(req));

async function stop(): Promise<void> {
  await realtime.close();
  // A client that does not answer the close keeps its connection open; do not wait for it.
  await Promise.race([server.shutdown(), new Promise((resolve) => setTimeout(resolve, 1_000))]);
  Deno.exit(0);
}
Deno.addSignalListener("SIGTERM", stop);
// deno-lint-ignore no-empty
for await (const _ of Deno.stdin.readable) {}
await stop();
