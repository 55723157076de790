/** What each rank may do. The database decides; this only hides what it would refuse. */
import type { Rank } from "../data/rows.ts";

const ORDER: Record<Rank, number> = { viewer: 0, operator: 1, admin: 2 };

/** Whether a rank is at least another one. */
export function rankIs(rank: Rank, minimum: Rank): boolean {
  return ORDER[rank] >= ORDER[minimum];
}

/** Whether this rank may manage the fleet: halt, pin, hold, suspend, accept. */
export function mayOperate(rank: Rank): boolean {
  return rankIs(rank, "operator");
}

export const RANK_WORDS: Record<Rank, string> = {
  viewer: "Viewer: can view",
  operator: "Operator: can manage the fleet",
  admin: "Admin: can manage the fleet, users, and settings",
};
