import { readHaltReach } from "../data/reads.ts";
import type { HaltScope } from "../data/rows.ts";
import { useLive } from "../fleet/useLive.ts";
import { parseReach } from "./halts.ts";

/** How far a halt of this would reach, counted by the database. */
export function useHaltReach(scope: HaltScope, target: string | null) {
  return useLive({
    key: ["halt reach", scope, target],
    tables: ["devices"],
    read: async (client) => parseReach(await readHaltReach(client, scope, target)),
    enabled: scope === "fleet" || target !== null,
  });
}
