/** What an operator does to one device: a database function if there is one, otherwise an edit of its row. */
import type { Client } from "../data/client.ts";
import { dataOf } from "../data/reads.ts";

export async function acceptDevice(client: Client, id: string): Promise<void> {
  dataOf(await client.rpc("accept_device", { device_id: id }));
}

export async function pinDevice(client: Client, id: string, releaseId: string): Promise<void> {
  dataOf(await client.rpc("pin_device", { device_id: id, release_id: releaseId }));
}

export async function unpinDevice(client: Client, id: string): Promise<void> {
  dataOf(await client.rpc("unpin_device", { device_id: id }));
}

export async function holdDevice(client: Client, id: string, reason: string): Promise<void> {
  await edit(client, id, { hold: true, hold_reason: reason, hold_until: null });
}

export async function endHold(client: Client, id: string): Promise<void> {
  await edit(client, id, { hold: false });
}

export async function setState(client: Client, id: string, state: "active" | "suspended"): Promise<void> {
  await edit(client, id, { state });
}

/** A command that the device runs once, at its next check-in. */
export async function leaveSafeMode(client: Client, id: string): Promise<void> {
  dataOf(await client.from("device_commands").insert({ device_id: id, kind: "leave_safe_mode" }));
}

/** Until this time its maintenance window is set aside. */
export async function ignoreWindow(client: Client, id: string, until: string): Promise<void> {
  await edit(client, id, { ignore_window_until: until });
}

/** The device may be offered again what it rolled back from. */
export async function forgive(client: Client, id: string): Promise<void> {
  dataOf(await client.from("known_bad_releases").delete().eq("device_id", id));
}

type Edit = { hold: boolean; hold_reason?: string; hold_until?: null } | { state: "active" | "suspended" } | {
  ignore_window_until: string;
};

async function edit(client: Client, id: string, change: Edit): Promise<void> {
  // `single` turns an edit that row-level security left without a row into a refusal.
  dataOf(await client.from("devices").update(change).eq("id", id).select("id").single());
}
