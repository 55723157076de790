/** How machines join: tokens, the line that is pasted on a device, and devices that wait to be let in. */
import type { Address } from "../data/client.ts";
import type { Database, Tables } from "../data/generated/database.types.ts";
import { counted } from "../format/size.ts";

export type TokenRow = Database["public"]["Functions"]["provisioning_tokens"]["Returns"][number];

export const PENDING_COLUMNS = "id,name,role,segment,branch,public_key,hardware_model,os,created_at";
export type PendingRow = Pick<
  Tables<"devices">,
  "id" | "name" | "role" | "segment" | "branch" | "public_key" | "hardware_model" | "os" | "created_at"
>;

/** What `create_provisioning_token` answers, once. */
export interface MadeToken {
  id: string;
  token: string;
  role: string;
  segment: string;
  max_uses: number;
  expires_at: string;
}

export type TokenState = "open" | "used up" | "expired" | "revoked";

/** Whether machines can still enroll with it. */
export function tokenState(
  token: Pick<TokenRow, "revoked_at" | "uses" | "max_uses" | "expires_at">,
  now: number,
): TokenState {
  if (token.revoked_at) return "revoked";
  if (token.uses >= token.max_uses) return "used up";
  return Date.parse(token.expires_at) <= now ? "expired" : "open";
}

/** What to run on the device, as `fleetctl token create` prints it. */
export function enrollLine({ supabaseUrl, publishableKey }: Address, token: string): string {
  return ["fleet-agent", "enroll", "--url", supabaseUrl, "--key", publishableKey, "--token", token].map(
    quoted,
  )
    .join(" ");
}

/** "3 of 5 devices joined". */
export function usesWords({ uses, max_uses }: Pick<TokenRow, "uses" | "max_uses">): string {
  return `${uses.toLocaleString("en")} of ${counted(max_uses, "device")} joined`;
}

/** A word of a shell command: quoted unless it needs no quotes. */
function quoted(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** Hours that a token is valid, as the form offers them. */
export const VALIDITIES = [
  { value: "86400", label: "1 day" },
  { value: "604800", label: "7 days" },
  { value: "2592000", label: "30 days" },
  { value: "31536000", label: "1 year" },
] as const;

export interface Outcome {
  name: string;
  /** Null: it worked. */
  error: string | null;
}

/** Do the same to each, one after another, so that one refusal does not keep the others from it. */
export async function each<Row extends { name: string }>(
  rows: readonly Row[],
  act: (row: Row) => Promise<void>,
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const row of rows) {
    try {
      await act(row);
      outcomes.push({ name: row.name, error: null });
    } catch (cause) {
      outcomes.push({ name: row.name, error: cause instanceof Error ? cause.message : String(cause) });
    }
  }
  return outcomes;
}

/** "Accepted 2 devices. Not accepted: 1 device." */
export function outcomeWords(verb: string, outcomes: readonly Outcome[]): string {
  const failed = outcomes.filter(({ error }) => error !== null).length;
  const sentence = `${verb} ${counted(outcomes.length - failed, "device")}.`;
  return failed === 0 ? sentence : `${sentence} Not ${verb.toLowerCase()}: ${counted(failed, "device")}.`;
}
