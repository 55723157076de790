/** Halts are opened and lifted by the database, which decides who may. */
import type { Client } from "../data/client.ts";
import { dataOf } from "../data/reads.ts";
import type { HaltScope } from "../data/rows.ts";

export async function haltFleet(client: Client, reason: string): Promise<void> {
  dataOf(await client.rpc("halt_fleet", { reason }));
}

export interface NewHalt {
  scope: HaltScope;
  target: string;
  reason: string;
  /** Devices that run the release go back to the one they had before. */
  roll_back: boolean;
  /** Past the limits of slots. */
  all_at_once: boolean;
}

export async function openHalt(client: Client, halt: NewHalt): Promise<void> {
  dataOf(await client.from("halts").insert(halt));
}

export async function liftHalt(client: Client, haltId: string, reason: string): Promise<void> {
  dataOf(await client.rpc("lift_halt", { halt_id: haltId, reason }));
}
