import { createContext, useContext } from "react";
import type { ChannelState } from "./connectionStatus.ts";

/** How the page hears of changes: by the live channel, and by polling. */
export interface Connection {
  channel: ChannelState;
  pollSeconds: number;
}

export const ConnectionContext = createContext<Connection | null>(null);

export function useConnection(): Connection {
  const connection = useContext(ConnectionContext);
  if (!connection) throw new Error("useConnection is only for components inside RealtimeProvider");
  return connection;
}
