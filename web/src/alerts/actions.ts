/** Operators acknowledge an alert; policy resolves it when the cause is gone. */
import type { Client } from "../data/client.ts";
import { pieces } from "../data/paging.ts";
import { dataOf } from "../data/reads.ts";

/** Ids in one address, as in `data/reads.ts`. */
const IDS_IN_ONE_ADDRESS = 100;

/** Acknowledge these as the caller; the database records who and when. */
export async function acknowledge(client: Client, ids: readonly string[]): Promise<void> {
  const change = { acknowledged_at: new Date().toISOString() };
  for (const some of pieces(ids, IDS_IN_ONE_ADDRESS)) {
    dataOf(
      await client.from("alerts").update(change).in("id", some).is("acknowledged_at", null).select("id"),
    );
  }
}
