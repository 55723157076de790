/** Static files: the dashboard, and the table editor's own assets. */
import { policyFor } from "./policy.ts";

const TYPES: Record<string, string> = {
  css: "text/css; charset=utf-8",
  html: "text/html; charset=utf-8",
  ico: "image/x-icon",
  js: "text/javascript; charset=utf-8",
  json: "application/json; charset=utf-8",
  map: "application/json; charset=utf-8",
  png: "image/png",
  svg: "image/svg+xml",
  txt: "text/plain; charset=utf-8",
  webmanifest: "application/manifest+json",
  woff2: "font/woff2",
};

/** Vite puts a hash of the content into names below assets/: they never change. Everything else is revalidated. */
const FOREVER = "public, max-age=31536000, immutable";

/** The file at `path` below `folder`, or null. A path cannot leave the folder. */
export async function serveFile(folder: string, path: string, request: Request): Promise<Response | null> {
  let name: string;
  try {
    name = decodeURIComponent(path);
  } catch {
    return null;
  }
  const segments = name.split("/").filter((segment) => segment !== "");
  // Also no dot files: a build may leave stamps there.
  if (
    segments.length === 0 || segments.some((segment) => segment.startsWith(".") || /[\\\0]/.test(segment))
  ) {
    return null;
  }
  const file = `${folder}/${segments.join("/")}`;
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(file);
  } catch {
    return null;
  }
  if (!info.isFile) return null;
  const extension = file.slice(file.lastIndexOf(".") + 1).toLowerCase();
  const hashed = segments.length > 1 && segments.at(-2) === "assets";
  const etag = `"${info.size.toString(36)}-${(info.mtime?.getTime() ?? 0).toString(36)}"`;
  const headers = {
    "content-type": TYPES[extension] ?? "application/octet-stream",
    "content-length": String(info.size),
    "cache-control": hashed ? FOREVER : "no-cache",
    etag,
  };
  if (request.headers.get("if-none-match") === etag) {
    const { "content-length": _, ...kept } = headers;
    return new Response(null, { status: 304, headers: kept });
  }
  if (request.method === "HEAD") return new Response(null, { headers });
  return new Response((await Deno.open(file)).readable, { headers });
}

/** The dashboard: its files, `/config.json`, and index.html for every other page of the single-page app. */
export async function serveDashboard(
  folder: string,
  path: string,
  request: Request,
  settings: { origin: string; publishableKey: string },
): Promise<Response> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return Response.json({ kind: "not_found", message: `${request.method} ${path} is not supported.` }, {
      status: 404,
    });
  }
  if (path === "/config.json") {
    return Response.json({ supabaseUrl: settings.origin, publishableKey: settings.publishableKey }, {
      headers: { "cache-control": "no-store" },
    });
  }
  const file = path === "/index.html" ? null : await serveFile(folder, path, request);
  if (file) return file;
  // A missing script must be a 404; HTML instead would be a puzzling syntax error.
  if (path.startsWith("/assets/")) {
    return Response.json({ kind: "not_found", message: `${path} does not exist.` }, { status: 404 });
  }
  const index = await serveFile(folder, "/index.html", request);
  if (index) {
    const page = await Deno.readTextFile(`${folder}/index.html`);
    index.headers.set("content-security-policy", policyFor(page, settings.origin));
    return index;
  }
  return new Response(NOT_BUILT, {
    status: 404,
    headers: {
      "content-type": TYPES.html,
      "cache-control": "no-store",
      "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    },
  });
}

const NOT_BUILT = `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Metrica Fleet</title>
<style>body{font:16px/1.5 system-ui;max-width:38rem;margin:15vh auto;padding:0 1rem}code{background:#8882;padding:.1em .3em}</style>
<h1>The dashboard has not been built</h1>
<p>The control plane is running; its API is at this address. The dashboard's files are missing because it was started
with <code>--no-web</code> or from a checkout without <code>web/</code>.</p>
<p>To build it: <code>fleetctl down</code>, then <code>fleetctl up</code>.</p></html>
`;
