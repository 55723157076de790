// What all edge functions share: one method, one path, a small JSON body, CORS, and
// answers that are JSON with a `kind` (refusals) and always the server's time.

/** A refusal with a stable kind: what happened in one sentence, and what to try. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly kind: string,
    message: string,
    readonly hint = "",
    readonly retryAfterS?: number,
  ) {
    super(message);
  }
}

export type Handler = (request: Request) => Promise<Response>;
export type Clock = () => Date;

/** Bodies are a few hundred bytes; larger ones are not ours and are refused before they are read whole. */
const MAX_BODY_BYTES = 16 * 1024;

const CORS = {
  "access-control-allow-origin": "*",
  "access-control-allow-methods": "POST, OPTIONS",
  "access-control-allow-headers": "authorization, x-client-info, apikey, content-type",
};

/**
 * A POST endpoint named `name`, reached as `/`, `/<name>` (Supabase) or `/functions/v1/<name>` (local server).
 * `handle` gets the parsed JSON, still unknown, and may throw a Refusal; anything else it throws is logged and
 * answered as 500 without detail.
 */
export function postEndpoint(
  name: string,
  now: Clock,
  handle: (body: unknown, request: Request) => Promise<Response>,
): Handler {
  const paths = new Set(["/", `/${name}`, `/functions/v1/${name}`]);
  return async (request) => {
    try {
      const path = new URL(request.url).pathname.replace(/(.)\/+$/, "$1");
      if (!paths.has(path)) throw new Refusal(404, "not_found", `Nothing is served at ${path}.`);
      if (request.method === "OPTIONS") return new Response(null, { status: 204, headers: CORS });
      if (request.method !== "POST") {
        throw new Refusal(405, "method_not_allowed", `${name} accepts POST requests only.`);
      }
      return await handle(await readJson(request), request);
    } catch (error) {
      if (error instanceof Refusal) return refuse(error, now);
      // Whatever was thrown may quote a body; the message of our own code and of Deno's does not.
      console.error(`${name}: ${error instanceof Error ? error.stack ?? error.message : "unknown error"}`);
      return refuse(
        new Refusal(500, "server_error", `${name} failed.`, "Try again; the function's log has the cause."),
        now,
      );
    }
  };
}

/** A handler that is made at its first request; a failure to make it is answered, and tried again. */
export function lazyHandler(name: string, make: () => Handler): Handler {
  let made: Handler | undefined;
  return async (request) => {
    try {
      made ??= make();
    } catch (error) {
      console.error(`${name}: ${error instanceof Error ? error.message : "unknown error"}`);
      const refusal = new Refusal(
        500,
        "misconfigured",
        `${name} is not configured.`,
        "The function's log says what is missing.",
      );
      return refuse(refusal, () => new Date());
    }
    return await made(request);
  };
}

/** A JSON answer with the server's time in it. */
export function answer(status: number, body: Record<string, unknown>, now: Clock): Response {
  return json(status, { ...body, server_time: now().toISOString() });
}

/** The caller's address as the gateway reports it; all unknown callers share one allowance. */
export function clientAddress(request: Request): string {
  // The leftmost entry: the ones to its right are the platform's own proxies, the same for every device. A
  // caller can forge it, so it only ever slows a caller down and never lets one in.
  return request.headers.get("x-forwarded-for")?.split(",")[0]?.trim().slice(0, 64) || "unknown";
}

export function badRequest(message: string, hint = ""): Refusal {
  return new Refusal(400, "bad_request", message, hint);
}

function refuse(refusal: Refusal, now: Clock): Response {
  const { status, kind, message, hint, retryAfterS } = refusal;
  const headers: Record<string, string> = retryAfterS === undefined
    ? {}
    : { "retry-after": `${retryAfterS}` };
  if (status === 405) headers.allow = "POST, OPTIONS";
  return json(status, { kind, message, hint, server_time: now().toISOString() }, headers);
}

function json(status: number, body: unknown, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { ...CORS, "content-type": "application/json", "cache-control": "no-store", ...headers },
  });
}

async function readJson(request: Request): Promise<unknown> {
  const bytes = new Uint8Array(MAX_BODY_BYTES);
  let length = 0;
  for await (const chunk of request.body ?? []) {
    if (length + chunk.byteLength > MAX_BODY_BYTES) {
      throw badRequest(`The request body is larger than ${MAX_BODY_BYTES} bytes.`);
    }
    bytes.set(chunk, length);
    length += chunk.byteLength;
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, length)));
  } catch {
    throw badRequest("The request body is not valid JSON.", "Send one JSON object in UTF-8.");
  }
}
