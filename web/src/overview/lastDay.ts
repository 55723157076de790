/** What happened in the last 24 hours, as sentences with numbers. */
import type { LastDayRow } from "../data/rows.ts";
import { counted } from "../format/size.ts";

export interface Happening {
  words: string;
  /** Where to look at it; empty if there is no page for it. */
  href: string;
}

/** Only what happened: a quiet day is an empty list. */
export function happenings(day: LastDayRow): Happening[] {
  const found: Happening[] = [];
  const add = (count: number | null, one: string, many: string, href: string) => {
    if (count) found.push({ words: `${count.toLocaleString("en")} ${count === 1 ? one : many}`, href });
  };
  add(
    day.updates_succeeded,
    "update succeeded",
    "updates succeeded",
    "/devices?select=last_outcome%3Dsucceeded",
  );
  add(
    day.updates_rolled_back,
    "update rolled back",
    "updates rolled back",
    "/devices?select=last_outcome%3Drolled_back",
  );
  add(day.updates_failed, "update failed", "updates failed", "/devices?select=last_outcome%3Dfailed");
  add(day.updates_skipped, "update skipped", "updates skipped", "/devices?select=last_outcome%3Dskipped");
  add(day.devices_joined, "device joined", "devices joined", "/devices");
  add(day.releases_added, "release added", "releases added", "/releases");
  add(day.rollouts_started, "rollout started", "rollouts started", "/rollouts");
  add(day.rollouts_ended, "rollout ended", "rollouts ended", "/rollouts");
  add(day.halts_opened, "halt opened", "halts opened", "/halts");
  add(day.halts_lifted, "halt lifted", "halts lifted", "/halts");
  add(day.alerts_opened, "alert opened", "alerts opened", "/alerts");
  add(day.alerts_resolved, "alert resolved", "alerts resolved", "/alerts");
  if (day.edits) {
    const by = day.people ? ` by ${counted(day.people, "person", "people")}` : "";
    found.push({ words: `${counted(day.edits, "change")}${by}`, href: "/audit" });
  }
  return found;
}
