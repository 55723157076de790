/**
 * What stands before Lite's Auth: guessing is slow, and only the project's secret key makes users. A project that
 * signs up nobody is what `supabase/config.toml` asks of hosted Supabase, too.
 */
import type { App } from "@supabase/lite";
import { callerAddress } from "./client.ts";
import { Guesses } from "./guesses.ts";

/** A body of Auth is an address and a password. */
const BODY_BYTES = 64 * 1024;

export interface AuthApps {
  /** Signs up nobody. */
  closed: App;
  /** Signs up, for whoever has the secret key. */
  open: App;
}

/** The handler of `/auth/v1`. */
export function serveAuth(apps: AuthApps, secretKey: string, guesses = new Guesses()) {
  return async (request: Request, peer: string): Promise<Response> => {
    const url = new URL(request.url);
    // No address of Auth needs an escape, and Lite would unescape it only after we looked at the path.
    if (url.pathname.includes("%")) return refusal(404, "not_found", "There is no such address.");
    const body = await bodyOf(request);
    if (body === null) return refusal(413, "request_too_large", "The request body is too large.");
    const isOwner = (request.headers.get("apikey") ?? url.searchParams.get("apikey")) === secretKey;
    const context = { peerAddress: peer };
    const forward = async () => {
      const app = isOwner ? apps.open : apps.closed;
      return readable(await app.fetch(withBody(request, isOwner ? body : notCreating(url, body)), context));
    };
    if (isOwner || !isGuess(request.method, url)) return await forward();

    const [address, account] = [callerAddress(request, peer), accountOf(body)];
    const waitS = guesses.take(address, account);
    if (waitS > 0) {
      return refusal(429, "over_request_rate_limit", "Request rate limit reached", {
        "retry-after": String(waitS),
      });
    }
    const answer = await forward();
    // A redirect says in its fragment whether the link was good.
    const refused = answer.status >= 400 || /[#&]error=/.test(answer.headers.get("location") ?? "");
    if (answer.status >= 500) guesses.giveBack(address, account);
    else if (!refused) guesses.right(address, account);
    return answer;
  };
}

/** A password, or a code of six digits that was sent by mail. Other tokens are too long to be guessed. */
function isGuess(method: string, { pathname, searchParams }: URL): boolean {
  if (pathname === "/auth/v1/verify") return method === "POST" || method === "GET";
  const grant = searchParams.get("grant_type");
  return pathname === "/auth/v1/token" && method === "POST" && grant !== "refresh_token" && grant !== "pkce";
}

/** Whose password or code it is; empty if the request does not say. */
function accountOf(body: Uint8Array<ArrayBuffer>): string {
  const { email } = parsed(body);
  return typeof email === "string" ? email.trim().toLowerCase().slice(0, 320) : "";
}

/** A code by mail makes a user of an unknown address unless it is told not to, whether sign-up is closed or not. */
function notCreating(url: URL, body: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (url.pathname !== "/auth/v1/otp") return body;
  return new TextEncoder().encode(JSON.stringify({ ...parsed(body), create_user: false }));
}

function parsed(body: Uint8Array<ArrayBuffer>): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(body));
    return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
  } catch {
    return {};
  }
}

async function bodyOf(request: Request): Promise<Uint8Array<ArrayBuffer> | null> {
  const bytes = new Uint8Array(BODY_BYTES);
  let length = 0;
  for await (const chunk of request.body ?? []) {
    if (length + chunk.byteLength > BODY_BYTES) return null;
    bytes.set(chunk, length);
    length += chunk.byteLength;
  }
  return bytes.slice(0, length);
}

function withBody(request: Request, body: Uint8Array<ArrayBuffer>): Request {
  const { method, headers, url } = request;
  const hasBody = method !== "GET" && method !== "HEAD" && body.length > 0;
  const kept = new Headers(headers);
  kept.delete("content-length");
  return new Request(url, { method, headers: kept, body: hasBody ? body : undefined });
}

/** As GoTrue, readable for a dashboard that is served elsewhere; Lite leaves the header out. */
function readable(answer: Response): Response {
  if (answer.headers.has("access-control-allow-origin")) return answer;
  const headers = new Headers(answer.headers);
  headers.set("access-control-allow-origin", "*");
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}

/** In GoTrue's form. */
function refusal(
  status: number,
  errorCode: string,
  msg: string,
  headers: Record<string, string> = {},
): Response {
  return Response.json({ code: status, error_code: errorCode, msg }, {
    status,
    headers: { "access-control-allow-origin": "*", "x-sb-error-code": errorCode, ...headers },
  });
}
