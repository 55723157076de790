/** Ties the live channel to the query cache, and tells the page how fresh it is. */
import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect, useMemo, useState } from "react";
import { useClient } from "../auth/session.tsx";
import { applyBatch } from "../fleet/useFleet.ts";
import { followFleet } from "./fleetChannel.ts";
import { Gatherer } from "./changes.ts";
import type { ChannelState } from "./connectionStatus.ts";

/** How long changes are gathered before their rows are read: short to the eye, long to a burst. */
const GATHER_MS = 200;

interface Link {
  channel: ChannelState;
  pollSeconds: number;
}

const LinkContext = createContext<Link | null>(null);

export function useLink(): Link {
  const link = useContext(LinkContext);
  if (!link) throw new Error("useLink is only for components inside LiveProvider");
  return link;
}

export function LiveProvider({ pollSeconds, children }: { pollSeconds: number; children: ReactNode }) {
  const client = useClient();
  const cache = useQueryClient();
  const [channel, setChannel] = useState<ChannelState>("joining");

  useEffect(() => {
    const gatherer = new Gatherer(async (batch) => {
      // A read that fails here is made up for by the next poll.
      await applyBatch(client, cache, batch).catch(() => cache.invalidateQueries());
    }, GATHER_MS);
    const stop = followFleet(client, {
      changed: (change) => gatherer.add(change),
      state: (state) => {
        setChannel(state);
        if (state === "live") void readAgain(cache);
      },
    });
    return () => {
      stop();
      gatherer.stop();
    };
  }, [client, cache]);

  const link = useMemo(() => ({ channel, pollSeconds }), [channel, pollSeconds]);
  return <LinkContext.Provider value={link}>{children}</LinkContext.Provider>;
}

/** What happened before the channel was joined was not told: after the reads under way, which began before, once more. */
async function readAgain(cache: QueryClient): Promise<void> {
  await cache.refetchQueries({ fetchStatus: "fetching" }, { cancelRefetch: false });
  await cache.invalidateQueries();
}
