/** The database decides: who may accept, who may make tokens. */
import type { Client } from "../data/client.ts";
import { dataOf, saidByDevices } from "../data/reads.ts";
import { type MadeToken, PENDING_COLUMNS, type PendingRow, type TokenRow } from "./provisioning.ts";

/** Devices that wait, the longest first; PostgREST's limit is far above what a person compares by hand. */
export async function readPending(client: Client): Promise<PendingRow[]> {
  return saidByDevices(
    await client.from("devices").select(PENDING_COLUMNS).eq("state", "pending").order("created_at").limit(
      1000,
    ),
  );
}

export async function readTokens(client: Client): Promise<TokenRow[]> {
  return dataOf(await client.rpc("provisioning_tokens"));
}

export interface TokenWish {
  role: string;
  segment: string;
  branch: string;
  note: string;
  max_uses: number;
  valid_for_s: number;
  auto_accept: boolean;
}

export async function createToken(client: Client, wish: TokenWish): Promise<MadeToken> {
  return dataOf(await client.rpc("create_provisioning_token", wish)) as unknown as MadeToken;
}

export async function revokeToken(client: Client, id: string): Promise<void> {
  dataOf(await client.rpc("revoke_provisioning_token", { token_id: id }));
}

export async function acceptPending(client: Client, id: string): Promise<void> {
  dataOf(await client.rpc("accept_device", { device_id: id }));
}

/** Its row goes; it may ask again. */
export async function refusePending(client: Client, id: string): Promise<void> {
  dataOf(await client.from("devices").delete().eq("id", id).eq("state", "pending").select("id").single());
}

export interface Choices {
  roles: string[];
  segments: string[];
  branches: string[];
}

/** What a token can give its devices. */
export async function readChoices(client: Client): Promise<Choices> {
  const [roles, segments, branches] = await Promise.all([
    client.from("device_roles").select("name").order("name").limit(1000),
    client.from("segments").select("name").order("position").limit(1000),
    client.from("branches").select("name").order("name").limit(1000),
  ]);
  const names = (rows: { name: string }[]) => rows.map(({ name }) => name);
  return {
    roles: names(dataOf(roles)),
    segments: names(dataOf(segments)),
    branches: names(dataOf(branches)),
  };
}
