import type { ApiKeys } from "./apikey.ts";
import type { Authorizer } from "./authorize.ts";
import type { Channel } from "./channel.ts";
import type { Sql } from "./deps.ts";
import type { Feed } from "./feed.ts";
import type { Hub } from "./hub.ts";
import type { Tokens } from "./jwt.ts";
import type { Limits, RateCounter } from "./limits.ts";
import type { Presence } from "./presence.ts";
import type { Socket } from "./socket.ts";

/** What every socket, channel and request of one endpoint shares. */
export interface Context {
  limits: Limits;
  tokens: Tokens;
  keys: ApiKeys;
  sql: Sql;
  authorizer: Authorizer;
  feed: Feed;
  hub: Hub<Channel>;
  presence: Presence<Channel>;
  sockets: Set<Socket>;
  rates: { joins: RateCounter; messages: RateCounter; presence: RateCounter };
  /** Set once `close` was called: nobody may join any more. */
  closing: boolean;
  log: (line: string) => void;
}

/** Resolves after `ms`, or at once where a limit sets the delay to zero. */
export function pause(ms: number): Promise<void> {
  return ms > 0 ? new Promise((resolve) => setTimeout(resolve, ms)) : Promise.resolve();
}
