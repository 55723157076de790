/**
 * The embedded control plane: one process, one origin. Started, restarted and stopped by `fleetctl up`.
 *
 *   /rest/v1, /auth/v1, /storage/v1   @supabase/lite
 *   /realtime/v1                      ./realtime/mod.ts
 *   /functions/v1/<name>              edge_functions/<name>/index.ts
 *   /_fleet/health                    is every part ready?
 *   everything else                   the dashboard
 */
import { serveAuth } from "./auth.ts";
import { isBehindTls, isLoopback, originOf } from "./client.ts";
import { readConfig } from "./config.ts";
import { answer, loadFunctions } from "./functions.ts";
import { createLite } from "./lite.ts";
import { startScheduler } from "./scheduler.ts";
import { withSecurityHeaders } from "./security_headers.ts";
import { serveDashboard } from "./static.ts";
import { serveTableEditor } from "./table_editor.ts";
import { tokenGuard } from "./tokens.ts";

interface Realtime {
  handle(request: Request, info: Deno.ServeHandlerInfo): Promise<Response>;
  close(): Promise<void>;
}

const log = (line: string) => console.log(`${new Date().toISOString()} ${line}`);
const config = readConfig((name) => Deno.env.get(name));

const [lite, functions, realtime] = await Promise.all([
  createLite(config),
  loadFunctions(config.functionsDir, log),
  loadRealtime(),
]);
const auth = serveAuth(lite.auth, config.secretKey);
const refusedToken = tokenGuard(config.jwtSecret);
const scheduler = startScheduler(config.postgresDbUrl, log);

async function loadRealtime(): Promise<Realtime | string> {
  try {
    const { createRealtime } = await import("./realtime/mod.ts");
    return await createRealtime({
      dbUrl: config.dbUrl,
      jwtSecret: config.jwtSecret,
      publishableKey: config.publishableKey,
      secretKey: config.secretKey,
      log: (line: string) => log(`realtime: ${line}`),
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    log(`realtime is unavailable: ${why}`);
    return why;
  }
}

async function handle(request: Request, info: Deno.ServeHandlerInfo<Deno.NetAddr>): Promise<Response> {
  // Asked first: a request that became a WebSocket no longer tells.
  const behindTls = isBehindTls(request, info.remoteAddr.hostname);
  return withSecurityHeaders(await route(request, info), behindTls);
}

async function route(request: Request, info: Deno.ServeHandlerInfo<Deno.NetAddr>): Promise<Response> {
  const path = new URL(request.url).pathname;
  const peerAddress = info.remoteAddr.hostname;
  if (path.startsWith("/rest/v1") || path.startsWith("/storage/v1")) {
    const refused = request.method === "OPTIONS" ? null : await refusedToken(request);
    if (refused) return refused;
    return await lite.rest.fetch(request, { peerAddress });
  }
  if (path.startsWith("/auth/v1")) return await auth(request, peerAddress);
  if (path.startsWith("/realtime/v1/")) {
    if (typeof realtime !== "string") return await realtime.handle(request, info);
    return answer(
      503,
      "realtime_unavailable",
      "Realtime did not start; the server log has the reason. Devices keep polling.",
    );
  }
  if (path.startsWith("/functions/v1/")) {
    return await functions.handle(withClientAddress(request, peerAddress), path);
  }
  if (path === "/_fleet/health") return await health();
  const settings = { origin: originOf(request, peerAddress), publishableKey: config.publishableKey };
  return await serveDashboard(config.webDir, path, request, settings);
}

/**
 * As the gateway does on hosted. Functions rate-limit unknown callers by this header, so a caller must not choose it; a
 * proxy on this machine may, because only it knows the caller.
 */
function withClientAddress(request: Request, peer: string): Request {
  if (isLoopback(peer) && request.headers.has("x-forwarded-for")) return request;
  const headers = new Headers(request.headers);
  headers.set("x-forwarded-for", peer);
  return new Request(request, { headers });
}

/** 200 when every part works, 503 otherwise; the body says which. Nothing in it is secret. */
async function health(): Promise<Response> {
  let database = { state: "ready", detail: "" };
  try {
    await lite.ping();
  } catch (error) {
    database = { state: "failed", detail: error instanceof Error ? error.message : String(error) };
  }
  const parts = {
    database,
    realtime: typeof realtime === "string"
      ? { state: "failed", detail: realtime }
      : { state: "ready", detail: "" },
    functions: Object.keys(functions.failed).length
      ? { state: "failed", detail: `could not be loaded: ${Object.keys(functions.failed).join(", ")}` }
      : { state: "ready", detail: functions.names.join(", ") },
    scheduler: scheduler.lastError()
      ? { state: "failed", detail: scheduler.lastError() }
      : { state: "ready", detail: "" },
  };
  const ready = Object.values(parts).every((part) => part.state === "ready");
  return Response.json({ ready, parts }, {
    status: ready ? 200 : 503,
    headers: { "cache-control": "no-store" },
  });
}

const servers: Deno.HttpServer<Deno.NetAddr>[] = [
  Deno.serve({
    hostname: config.host,
    port: config.port,
    onListen() {},
    onError(error) {
      log(`request failed: ${error instanceof Error ? error.stack : error}`);
      const failed = answer(500, "internal_error", "The request failed; the server log has the reason.");
      return withSecurityHeaders(failed, false);
    },
  }, handle),
];
if (config.tableEditorPort) servers.push(serveTableEditor(lite.editor, config.tableEditorPort));

let stopping = false;
async function stop() {
  if (stopping) return;
  stopping = true;
  log("fleet: stopping");
  // Finish requests in progress, but do not let a socket delay the stop.
  const patience = setTimeout(() => Deno.exit(0), 5_000);
  if (typeof realtime !== "string") await realtime.close();
  await Promise.allSettled([...servers.map((server) => server.shutdown()), scheduler.close()]);
  await lite.close();
  clearTimeout(patience);
  Deno.exit(0);
}
Deno.addSignalListener("SIGTERM", stop);
Deno.addSignalListener("SIGINT", stop);

// Only from here on: during the start, an error ends the process and fleetctl reports it.
// A function that forgets to await may reject later; that must not stop the control plane.
globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  const reason = event.reason;
  log(`unhandled rejection: ${reason instanceof Error ? reason.stack : reason}`);
});
globalThis.addEventListener("error", (event) => {
  event.preventDefault();
  log(`uncaught error: ${event.error instanceof Error ? event.error.stack : event.message}`);
});

console.log("fleet: ready");
