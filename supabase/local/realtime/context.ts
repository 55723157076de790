import type { ApiKeys } from "./apikey.ts";
import type { Authorizer } from "./authorize.ts";
import type { Sql } from "./deps.ts";
import type { Feed } from "./feed.ts";
import type { Frame, Framing, Outgoing } from "./frames.ts";
import type { Hub, Member } from "./hub.ts";
import type { Tokens } from "./jwt.ts";
import type { Limits, RateCounter } from "./limits.ts";
import type { Presence } from "./presence.ts";

/** What every socket, channel and request of one endpoint shares. */
export interface Context {
  limits: Limits;
  tokens: Tokens;
  keys: ApiKeys;
  sql: Sql;
  authorizer: Authorizer;
  feed: Feed;
  hub: Hub;
  presence: Presence<Member>;
  connections: Set<Connection>;
  rates: { joins: RateCounter; messages: RateCounter; presence: RateCounter };
  /** Set once `close` was called: no further joins. */
  closing: boolean;
  log: (line: string) => void;
}

/** One client's connection, as its channels and the endpoint see it; `socket.ts` implements it. */
export interface Connection {
  readonly framing: Framing;
  /** The JWT that the API key stands for: what a join without a token of its own uses. */
  readonly token: string;
  /** The `x-…` headers of the request that opened the connection. */
  readonly headers: Record<string, string>;
  /** Channels joined or being joined. */
  readonly channelCount: number;
  send(frame: Frame): void;
  push(message: Outgoing): void;
  /** The channel of this wire topic has ended, unless a later join has replaced it. */
  forget(channel: { readonly wireTopic: string }): void;
  /** Closes the connection; the client may connect again. */
  drop(reason: string): void;
  /** Closes the connection because the endpoint is stopping. */
  goAway(): void;
}
