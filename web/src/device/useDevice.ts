/** What one device's page reads. All keys start with the device's, so that one broadcast renews the page. */
import { useQuery } from "@tanstack/react-query";
import { useClient } from "../auth/session.tsx";
import { KEYS } from "../data/queries.ts";
import { readDevice, readExplanation, readHistory, readStatus } from "../data/reads.ts";
import { usePollMs } from "../fleet/useFleet.ts";
import { parseExplanation } from "./gates.ts";

export function useDevice(id: string) {
  const client = useClient();
  const refetchInterval = usePollMs();
  return {
    device: useQuery({
      queryKey: [...KEYS.device(id), "row"],
      queryFn: () => readDevice(client, id),
      refetchInterval,
    }),
    status: useQuery({
      queryKey: [...KEYS.device(id), "status"],
      queryFn: () => readStatus(client, id),
      refetchInterval,
    }),
    history: useQuery({
      queryKey: [...KEYS.device(id), "history"],
      queryFn: () => readHistory(client, id),
      refetchInterval,
    }),
    explained: useQuery({
      queryKey: [...KEYS.device(id), "gates"],
      queryFn: async () => parseExplanation(await readExplanation(client, id)),
      refetchInterval,
    }),
  };
}
