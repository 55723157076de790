/** What each rank may do. The database decides; this only keeps the page from offering what it would refuse. */
import type { Rank } from "../data/rows.ts";

const ORDER: Record<Rank, number> = { viewer: 0, operator: 1, admin: 2 };

/** Whether a person of this rank may run the fleet: halt, pin, hold, suspend, accept. */
export function mayOperate(rank: Rank): boolean {
  return ORDER[rank] >= ORDER.operator;
}

export const RANK_WORDS: Record<Rank, string> = {
  viewer: "Viewer: may look",
  operator: "Operator: may run the fleet",
  admin: "Admin: may run the fleet, people and settings",
};
