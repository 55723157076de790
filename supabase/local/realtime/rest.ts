import { KeyRefused } from "./apikey.ts";
import { AuthorizeError, type AuthorizeFault } from "./authorize.ts";
import type { Context } from "./context.ts";
import { type Broadcast, isRecord } from "./frames.ts";
import { type Claims, TokenError } from "./jwt.ts";
import { payloadFits } from "./limits.ts";

const CORS = {
  "access-control-allow-origin": "*",
  "access-control-allow-methods": "POST, OPTIONS",
  "access-control-allow-headers": "*",
};
const SINGLE = /^\/realtime\/v1\/api\/broadcast\/([^/]+)\/events\/([^/]+)$/;

interface Sender {
  claims: Claims;
  headers: Record<string, string>;
}

interface Message {
  topic: string;
  isPrivate: boolean;
  bytes: number;
  broadcast: Broadcast;
}

type Faults = Record<string, unknown>;

/** Null: not one of the broadcast calls. */
export async function broadcastCall(context: Context, req: Request, url: URL): Promise<Response | null> {
  const single = SINGLE.exec(url.pathname);
  if (!single && url.pathname !== "/realtime/v1/api/broadcast") return null;
  if (req.method === "OPTIONS") return new Response(null, { status: 204, headers: CORS });
  if (req.method !== "POST") return answer(405, { message: "Use POST" });
  const sender = await authenticate(context, req, url);
  if (sender instanceof Response) return sender;
  return single
    ? await sendOne(context, sender, req, url, decodeURIComponent(single[1]), decodeURIComponent(single[2]))
    : await sendMany(context, sender, req);
}

/** The gateway's rule: an API key always, and any Authorization that is not itself an API key goes first. */
async function authenticate(context: Context, req: Request, url: URL): Promise<Sender | Response> {
  try {
    const key = req.headers.get("apikey") ?? req.headers.get("x-api-key") ?? url.searchParams.get("apikey");
    const keyToken = await context.keys.token(key);
    const bearer = /^bearer\s+(\S+)$/i.exec(req.headers.get("authorization") ?? "")?.[1];
    const token = bearer && !bearer.startsWith("sb_") ? bearer : keyToken;
    return { claims: await context.tokens.verify(token), headers: Object.fromEntries(req.headers) };
  } catch (error) {
    if (error instanceof KeyRefused) {
      return answer(error.status, { message: error.message, hint: error.hint });
    }
    if (error instanceof TokenError) return answer(401, { message: "Unauthorized" });
    throw error;
  }
}

async function sendMany(context: Context, sender: Sender, req: Request): Promise<Response> {
  let body: unknown;
  try {
    body = await req.json();
  } catch {
    return answer(400, { message: "The body is not valid JSON" });
  }
  const list = isRecord(body) && Array.isArray(body.messages) ? body.messages : null;
  if (!list) return answer(422, { errors: { messages: ["can't be blank"] } });
  const read = list.map((entry) => readMessage(entry, context));
  if (read.some((entry) => "faults" in entry)) {
    return answer(422, {
      errors: { messages: read.map((entry) => ("faults" in entry ? entry.faults : {})) },
    });
  }
  const messages = read as Message[];
  const { average, limit } = context.rates.messages;
  if (average > limit) return answer(429, { message: "You have exceeded your rate limit" });
  if (average + messages.length > limit) {
    return answer(429, { message: "Too many messages to broadcast, please reduce the batch size" });
  }
  const allowed = new Map<string, boolean>();
  for (const message of messages) {
    if (message.isPrivate && !allowed.has(message.topic)) {
      allowed.set(message.topic, await writeRefusal(context, sender, message.topic) === null);
    }
  }
  // Without permission a private message is left out and the call still succeeds, as on hosted.
  for (const message of messages) {
    if (!message.isPrivate || allowed.get(message.topic)) send(context, message);
  }
  return new Response(null, { status: 202, headers: CORS });
}

async function sendOne(
  context: Context,
  sender: Sender,
  req: Request,
  url: URL,
  topic: string,
  event: string,
): Promise<Response> {
  const type = (req.headers.get("content-type") ?? "application/json").split(";")[0].trim().toLowerCase();
  if (type !== "application/json" && type !== "application/octet-stream") {
    return answer(415, { error: "Unsupported Media Type. Use application/json or application/octet-stream" });
  }
  const body = new Uint8Array(await req.arrayBuffer());
  const isPrivate = url.searchParams.get("private") === "true";
  let broadcast: Broadcast = { kind: "binary", event, body };
  if (type === "application/json") {
    const text = new TextDecoder().decode(body);
    try {
      JSON.parse(text);
    } catch {
      return answer(400, { message: "The body is not valid JSON" });
    }
    broadcast = { kind: "json", event, body: text };
  }
  if (!payloadFits(body.length, context.limits)) {
    return answer(422, { errors: { payload: ["Payload size exceeds tenant limit"] } });
  }
  if (context.rates.messages.exceeded) return answer(429, { message: "You have exceeded your rate limit" });
  if (isPrivate) {
    // One message, one topic: here hosted does say that the sender may not.
    const refusal = await writeRefusal(context, sender, topic);
    if (refusal) return answer(refusal.status, { message: refusal.message });
  }
  send(context, { topic, isPrivate, bytes: body.length, broadcast });
  return new Response(null, { status: 202, headers: CORS });
}

function readMessage(entry: unknown, context: Context): Message | { faults: Faults } {
  const fields = isRecord(entry) ? entry : {};
  const { topic, event, payload } = fields;
  const faults: Faults = {};
  if (typeof topic !== "string" || topic === "") faults.topic = ["can't be blank"];
  if (typeof event !== "string" || event === "") faults.event = ["can't be blank"];
  if (payload === undefined || payload === null) faults.payload = ["can't be blank"];
  else if (!isRecord(payload)) faults.payload = ["is invalid"];
  const bytes = new TextEncoder().encode(JSON.stringify(payload ?? null)).length;
  if (!payloadFits(bytes, context.limits)) faults.payload = ["Payload size exceeds tenant limit"];
  if (Object.keys(faults).length) return { faults };
  const whole: Record<string, unknown> = { type: "broadcast", event, payload };
  if (typeof fields.id === "string") whole.meta = { id: fields.id };
  return {
    topic: topic as string,
    isPrivate: fields.private === true || fields.private === "true",
    bytes,
    broadcast: { kind: "whole", payload: whole },
  };
}

interface WriteRefusal {
  status: number;
  message: string;
}

const FAULTS: Record<AuthorizeFault, WriteRefusal> = {
  policy: { status: 422, message: "RLS policy error" },
  canceled: { status: 422, message: "Query canceled" },
  partition: { status: 422, message: "Missing messages partition" },
  pool: { status: 429, message: "Connection pool exhausted" },
  database: { status: 422, message: "Tenant database unavailable" },
};

/** Null: the sender may write to the private topic. */
async function writeRefusal(
  context: Context,
  { claims, headers }: Sender,
  topic: string,
): Promise<WriteRefusal | null> {
  try {
    const { broadcast } = await context.authorizer.write({ topic, claims, headers });
    return broadcast ? null : { status: 403, message: "Unauthorized" };
  } catch (error) {
    if (!(error instanceof AuthorizeError)) throw error;
    context.log(`REST broadcast to ${topic} not sent: ${error.message}`);
    return FAULTS[error.fault];
  }
}

function send(context: Context, { topic, isPrivate, broadcast }: Message): void {
  // Nobody can listen, so it must not count toward the limit that closes the channels of others.
  if (context.limits.privateOnly && !isPrivate) return;
  context.rates.messages.add();
  context.hub.broadcast(topic, isPrivate, broadcast);
}

function answer(status: number, body: Record<string, unknown>): Response {
  return Response.json(body, { status, headers: CORS });
}
