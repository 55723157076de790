/** The list as a file: everything that matches, in its order, with the columns of the page. */
import type { Client } from "../data/client.ts";
import { readDeviceList } from "../data/reads.ts";
import { serverNow } from "../data/serverClock.ts";
import type { SharedRows } from "../fleet/fleetData.ts";
import { csvOf } from "./csv.ts";
import { listedView, parsePage } from "./deviceList.ts";
import type { View } from "./filters.ts";
import { LOOKS } from "./shownState.ts";

/** Devices of one request: what the database gives at most. */
const ROWS = 1000;
const HEADER = [
  "name",
  "state",
  "role",
  "segment",
  "branch",
  "release",
  "target",
  "last contact",
  "maintenance window",
  "hardware",
  "agent",
  "labels",
  "details",
];

/** The text of the file. */
export async function csvOfList(
  client: Client,
  view: View,
  shared: SharedRows,
  now: number,
): Promise<string> {
  const rows: (string | null)[][] = [];
  for (let skip = 0, total = 1; skip < total; skip += ROWS) {
    const page = parsePage(
      await readDeviceList(client, view.selector, view.sort, view.descending, skip, ROWS),
    );
    total = page.total;
    for (const one of page.devices) {
      const it = listedView(one, shared, now);
      rows.push([
        it.name,
        LOOKS[it.shown].word,
        it.role,
        it.segment,
        it.branch,
        it.current,
        it.target,
        it.contactAt,
        it.window,
        it.hardware,
        it.agent,
        it.labels,
        it.why,
      ]);
    }
  }
  return csvOf(HEADER, rows);
}

export async function downloadList(client: Client, view: View, shared: SharedRows): Promise<void> {
  const text = await csvOfList(client, view, shared, serverNow());
  const link = document.createElement("a");
  // With a mark of its encoding: a spreadsheet guesses otherwise.
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  link.download = "devices.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}
