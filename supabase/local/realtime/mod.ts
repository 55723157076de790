/**
 * The Realtime endpoint of the embedded stack: what `@supabase/lite` lacks. It speaks the protocol of the
 * official clients in both framings; docs/development/realtime.md says what is spoken and what differs from hosted.
 */
import { ApiKeys, KeyRefused } from "./apikey.ts";
import { Authorizer } from "./authorize.ts";
import type { Context } from "./context.ts";
import { errorText, maintainPartitions, pool } from "./database.ts";
import { Feed } from "./feed.ts";
import type { Framing } from "./frames.ts";
import { V1 } from "./frames_v1.ts";
import { V2 } from "./frames_v2.ts";
import { Hub } from "./hub.ts";
import { Tokens } from "./jwt.ts";
import { DEFAULT_LIMITS, type Limits, RateCounter } from "./limits.ts";
import { Presence } from "./presence.ts";
import type { StoredMessage } from "./replay.ts";
import { broadcastCall } from "./rest.ts";
import { Socket } from "./socket.ts";
import { pause } from "./timing.ts";

export type { Limits } from "./limits.ts";

export interface RealtimeOptions {
  /** Of a superuser, which assumes the callers' roles to check their policies. */
  dbUrl: string;
  jwtSecret: string;
  publishableKey: string;
  secretKey: string;
  limits?: Partial<Limits>;
  log?: (line: string) => void;
}

export interface Realtime {
  /** Answers every request below `/realtime/v1/`. */
  handle(req: Request, info?: Deno.ServeHandlerInfo): Promise<Response>;
  /** Closes the sockets with 1001, then the database connections. */
  close(): Promise<void>;
}

/** Often enough that a machine that slept through midnight has today's partition soon. */
const PARTITIONS_EVERY_MS = 3_600_000;

/** Resolves once the database feed listens; raises when the database cannot be reached or lacks `realtime`. */
export async function createRealtime(options: RealtimeOptions): Promise<Realtime> {
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const log = options.log ?? (() => {});
  const sql = pool(
    options.dbUrl,
    "realtime_authorization",
    limits.authorizationPool,
    limits.authorizationTimeoutMs,
  );
  const tokens = new Tokens(options.jwtSecret);
  const hub = new Hub(log);
  const rate = (limit: number) => new RateCounter(limit, limits.rateTickMs);
  const rates = {
    joins: rate(limits.joinsPerSecond),
    messages: rate(limits.messagesPerSecond),
    presence: rate(limits.presencePerSecond),
  };
  const feed = new Feed({
    dbUrl: options.dbUrl,
    wants: (topic) => hub.wants(topic),
    deliver: (message) => {
      // Hosted drops database broadcasts while the limit is exceeded; nothing has checked the payload before.
      if (rates.messages.exceeded) return log(`message ${message.id} dropped: Too many messages per second`);
      deliver(hub, message, limits, rates.messages, log);
    },
    markEveryMs: limits.feedMarkMs,
    log,
  });
  const context: Context = {
    limits,
    tokens,
    keys: new ApiKeys(tokens, options.publishableKey, options.secretKey),
    sql,
    authorizer: new Authorizer(sql, limits),
    feed,
    hub,
    presence: new Presence(),
    connections: new Set(),
    rates,
    closing: false,
    log,
  };

  try {
    await maintainPartitions(sql);
    await feed.start();
  } catch (error) {
    await Promise.all([sql.end({ timeout: 1 }), feed.close()]);
    throw new Error(`Realtime could not start: ${errorText(error)}`, { cause: error });
  }
  const maintenance = setInterval(() => {
    maintainPartitions(sql).catch((error) =>
      log(`could not maintain the partitions of realtime.messages: ${errorText(error)}`)
    );
  }, PARTITIONS_EVERY_MS);

  return {
    async handle(req) {
      const url = new URL(req.url);
      if (url.pathname === "/realtime/v1/websocket") return await openSocket(context, req, url);
      return await broadcastCall(context, req, url) ??
        Response.json({ message: "Not found" }, { status: 404 });
    },
    async close() {
      context.closing = true;
      clearInterval(maintenance);
      for (const connection of [...context.connections]) connection.goAway();
      await Promise.all([feed.close(), sql.end({ timeout: 2 })]);
    },
  };
}

async function openSocket(context: Context, req: Request, url: URL): Promise<Response> {
  if (req.headers.get("upgrade")?.toLowerCase() !== "websocket") {
    return Response.json({ error: "This endpoint accepts WebSocket connections only" }, {
      status: 426,
      headers: { upgrade: "websocket" },
    });
  }
  const framing = framingOf(url.searchParams.get("vsn"));
  if (!framing) {
    return Response.json({ error: "The requested protocol version is not supported" }, { status: 403 });
  }
  let token: string;
  try {
    token = await context.keys.token(
      req.headers.get("x-api-key") ?? req.headers.get("apikey") ?? url.searchParams.get("apikey"),
    );
    mayConnect(context);
  } catch (error) {
    if (!(error instanceof KeyRefused)) throw error;
    context.log(`connection refused: ${error.message}`);
    await pause(context.limits.connectErrorDelayMs);
    return Response.json({ error: error.message, hint: error.hint }, { status: error.status });
  }
  const headers = Object.fromEntries([...req.headers].filter(([name]) => name.startsWith("x-")));
  // No pings of Deno's own: hosted sends none, a device pays for each, and silent clients are closed in socket.ts.
  const { socket, response } = Deno.upgradeWebSocket(req, { idleTimeout: 0 });
  new Socket(context, socket, framing, token, headers);
  return response;
}

function mayConnect({ connections, limits, rates, closing }: Context): void {
  if (closing) throw new KeyRefused(500, "Error connecting to Realtime");
  if (connections.size >= limits.maxConnections) throw new KeyRefused(429, "Too many connected users");
  if (rates.joins.exceeded) throw new KeyRefused(429, "Too many joins per second");
}

function framingOf(version: string | null): Framing | null {
  if (version === null || version === V1.version) return V1;
  return version === V2.version ? V2 : null;
}

function deliver(
  hub: Hub,
  { id, topic, event, private: isPrivate, payload, binary }: StoredMessage,
  limits: Limits,
  rate: RateCounter,
  log: (line: string) => void,
): void {
  const size = payload === null ? binary!.length : payload.length;
  if (size > limits.payloadBytes) return log(`message ${id} dropped: payload_size_exceeded`);
  rate.add();
  const meta = { id };
  const message = payload === null
    ? { kind: "binary", event, body: binary!, meta } as const
    : { kind: "json", event, body: payload, meta } as const;
  hub.broadcast(topic, isPrivate, message);
}
