/** Ties the live channel to the query cache, and tells the page how fresh it is. */
import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useMemo, useState } from "react";
import { useClient } from "../auth/session.tsx";
import { applyBatch } from "./applyBatch.ts";
import { ChangeBatcher } from "./changes.ts";
import { ConnectionContext } from "./connectionContext.ts";
import type { ChannelState } from "./connectionStatus.ts";
import { followFleet } from "./fleetChannel.ts";

/** How long changes are collected before their rows are read: short to the eye, long for a burst. */
const GATHER_MS = 200;

export function RealtimeProvider({ pollSeconds, children }: { pollSeconds: number; children: ReactNode }) {
  const client = useClient();
  const cache = useQueryClient();
  const [channel, setChannel] = useState<ChannelState>("joining");

  useEffect(() => {
    const batcher = new ChangeBatcher(async (batch) => {
      // If this fails, the next poll makes up for it.
      await applyBatch(client, cache, batch).catch(() => cache.invalidateQueries());
    }, GATHER_MS);
    const stop = followFleet(client, {
      changed: (change) => batcher.add(change),
      state: (state) => {
        setChannel(state);
        if (state === "live") void reload(cache);
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

/** Changes before the join were not announced: once the loads that began earlier have ended, load everything again. */
async function reload(cache: QueryClient): Promise<void> {
  await cache.refetchQueries({ fetchStatus: "fetching" }, { cancelRefetch: false });
  await cache.invalidateQueries();
}
