/**
 * The Supabase table editor that comes with Lite, on a port of its own. It acts as `service_role`
 * without a key, so this port serves only this machine and only its own pages.
 */
import type { App } from "@supabase/lite";
import { withSecurityHeaders } from "./security_headers.ts";
import { serveFile } from "./static.ts";

const STATIC = new URL(".", import.meta.resolve("@supabase/lite/static/favicon.ico"));

/** Why a request is refused, or null. */
export function refusal(request: Request, peer: string): string | null {
  if (peer !== "127.0.0.1" && peer !== "::1") {
    return "the table editor only accepts requests from this machine";
  }
  const url = new URL(request.url);
  // A page elsewhere may point a name of its own at 127.0.0.1: only loopback names are this server's.
  if (!["127.0.0.1", "localhost", "[::1]"].includes(url.hostname)) return "unknown host name";
  const origin = request.headers.get("origin");
  if (origin !== null && origin !== url.origin) return "request from another site";
  const site = request.headers.get("sec-fetch-site");
  const opensPage = request.headers.get("sec-fetch-mode") === "navigate" && request.method === "GET";
  if (site !== null && site !== "same-origin" && site !== "none" && !opensPage) {
    return "request from another site";
  }
  return null;
}

export function serveTableEditor(app: App, port: number): Deno.HttpServer<Deno.NetAddr> {
  const handle = async (request: Request, peer: string): Promise<Response> => {
    const why = refusal(request, peer);
    if (why) return Response.json({ kind: "refused", message: `Refused: ${why}.` }, { status: 403 });
    const path = new URL(request.url).pathname;
    if (path.startsWith("/static/")) {
      const file = await serveFile(
        decodeURIComponent(STATIC.pathname),
        path.slice("/static".length),
        request,
      );
      return file ??
        Response.json({ kind: "not_found", message: `${path} does not exist.` }, { status: 404 });
    }
    const answer = await app.fetch(request, { peerAddress: peer });
    return path === "/_system/info" ? await withoutConnection(answer) : answer;
  };
  return Deno.serve(
    { hostname: "127.0.0.1", port, onListen() {} },
    async (request, info) => withSecurityHeaders(await handle(request, info.remoteAddr.hostname), false),
  );
}

/** Lite would reveal the database address with its password, which the page does not need. */
async function withoutConnection(answer: Response): Promise<Response> {
  const body = await answer.json();
  return Response.json({ ...body, connection: {} }, { status: answer.status });
}
