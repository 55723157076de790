/** Ties the live channel to the query cache, and tells the page how fresh it is. */
import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useMemo, useState } from "react";
import { useClient } from "../auth/session.tsx";
import { applyBatch } from "./applyBatch.ts";
import { ChangeBatcher } from "./changes.ts";
import { ConnectionContext } from "./connectionContext.ts";
import type { ChannelState } from "./connectionStatus.ts";
import { followFleet } from "./fleetChannel.ts";

/** How long changes are gathered before their rows are read: short to the eye, long to a burst. */
const GATHER_MS = 200;

export function RealtimeProvider({ pollSeconds, children }: { pollSeconds: number; children: ReactNode }) {
  const client = useClient();
  const cache = useQueryClient();
  const [channel, setChannel] = useState<ChannelState>("joining");

  useEffect(() => {
    const batcher = new ChangeBatcher(async (batch) => {
      // A read that fails here is made up for by the next poll.
      await applyBatch(client, cache, batch).catch(() => cache.invalidateQueries());
    }, GATHER_MS);
    const stop = followFleet(client, {
      changed: (change) => batcher.add(change),
      state: (state) => {
        setChannel(state);
        if (state === "live") void readAgain(cache);
      },
    });
    return () => {
      stop();
      batcher.stop();
    };
  }, [client, cache]);

  const connection = useMemo(() => ({ channel, pollSeconds }), [channel, pollSeconds]);
  return <ConnectionContext.Provider value={connection}>{children}</ConnectionContext.Provider>;
}

/** What happened before the channel was joined was not told: after the reads under way, which began before, once more. */
async function readAgain(cache: QueryClient): Promise<void> {
  await cache.refetchQueries({ fetchStatus: "fetching" }, { cancelRefetch: false });
  await cache.invalidateQueries();
}
