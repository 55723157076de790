/** How many devices ran which release over time, as the database answers it. */
import { fields, list, number, text } from "../data/json.ts";

export interface Adoption {
  /** Days as "2026-11-28", oldest first. */
  days: string[];
  /** Oldest release first; the last one may be the sum of all others. */
  series: { name: string; branch: string | null; devices: number[] }[];
}

/** What is not one of the releases that most devices ran. */
export const OTHERS = "other releases";

/** Read the answer of `adoption_over_time`; a series has as many numbers as there are days. */
export function parseAdoption(answer: unknown): Adoption {
  const whole = fields(answer);
  const days = Array.isArray(whole.days) ? whole.days.flatMap((day) => text(day) ?? []) : [];
  const counts = (given: unknown) => {
    const values = Array.isArray(given) ? given : [];
    return days.map((_, index) => number(values[index]) ?? 0);
  };
  const series: Adoption["series"] = list(whole.releases).map((release) => ({
    name: text(release.version) ?? "?",
    branch: text(release.branch),
    devices: counts(release.devices),
  }));
  const others = counts(whole.others);
  if (others.some((count) => count > 0)) series.unshift({ name: OTHERS, branch: null, devices: others });
  return { days, series };
}
