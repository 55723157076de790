/** Reads for one page: read again by polling, and as soon as the live channel says that one of their tables changed. */
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useClient } from "../auth/session.tsx";
import type { Client } from "../data/client.ts";
import { usePollMs } from "./useFleet.ts";

export interface Live<T> {
  /** What tells this read from others: a name, then what it depends on. */
  key: readonly unknown[];
  /** The tables (not views) whose changes make the answer old. */
  tables: readonly string[];
  read: (client: Client) => Promise<T>;
  /** Keep showing the answer to the previous key until the new one is there: for lists that are filtered. */
  keepPrevious?: boolean;
  /** Read only if this is not false. */
  enabled?: boolean;
}

/** For example `useLive({ key: ["windows"], tables: ["maintenance_windows"], read: readWindows })`. */
export function useLive<T>({ key, tables, read, keepPrevious, enabled }: Live<T>) {
  const client = useClient();
  return useQuery({
    queryKey: ["live", ...key],
    queryFn: () => read(client),
    meta: { tables },
    refetchInterval: usePollMs(),
    ...(keepPrevious ? { placeholderData: keepPreviousData } : {}),
    ...(enabled === undefined ? {} : { enabled }),
  });
}
