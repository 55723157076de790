/** Both are database functions; the database decides who may call them. */
import type { Client } from "../data/client.ts";
import { dataOf } from "../data/reads.ts";

export async function haltFleet(client: Client, reason: string): Promise<void> {
  dataOf(await client.rpc("halt_fleet", { reason }));
}

export async function liftHalt(client: Client, haltId: string, reason: string): Promise<void> {
  dataOf(await client.rpc("lift_halt", { halt_id: haltId, reason }));
}
