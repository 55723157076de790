// POST enroll: a device sends its public key, proves that it holds the private one, and joins the fleet: right
// away with a provisioning token, otherwise as `pending` until an operator accepts it.

import { z } from "npm:zod@4.6.7";
import { keyInHeader, verify } from "../_shared/assertion.ts";
import { parseBody } from "../_shared/body.ts";
import type { Database } from "../_shared/database.ts";
import { databaseFromEnvironment, publishableKeysFromEnvironment } from "../_shared/environment.ts";
import {
  answer,
  clientAddress,
  type Clock,
  type Handler,
  lazyHandler,
  postEndpoint,
  Refusal,
} from "../_shared/http.ts";
import { unwrapResult } from "../_shared/sql_refusals.ts";

export interface Deps {
  database: Database;
  now: Clock;
  /** The keys that a device of this project may have in its configuration. */
  publishableKeys: readonly string[];
}

// Postgres stores neither NUL nor half a surrogate pair, and a line break in a log line is a forged log line.
const printable = (value: string) =>
  value.isWellFormed() && !/[\p{Cc}\u2028-\u202e\u2066-\u2069]/u.test(value);
const text = (max: number) =>
  z.string().trim().min(1).max(max).refine(printable, "must not contain control characters");

const label = z.string().max(255).refine(printable, "must not contain control characters");

const Body = z.object({
  proof: z.string().max(4096),
  name: text(200),
  provisioning_token: text(200).optional(),
  hardware_model: text(200).optional(),
  os: text(200).optional(),
  labels: z.record(text(63), label).refine((all) => Object.keys(all).length <= 32, "at most 32").optional(),
  agent_version: text(64).optional(),
});

const Enrolled = z.object({
  kind: z.enum(["enrolled", "pending"]),
  created: z.boolean(),
  name_taken: z.boolean(),
  device_id: z.guid(),
  name: z.string(),
  role: z.string(),
  segment: z.string(),
  branch: z.string(),
  state: z.string(),
});

export function makeHandler({ database, now, publishableKeys }: Deps): Handler {
  return postEndpoint("enroll", now, async (raw, request) => {
    requireProjectKey(request, publishableKeys);
    const { proof, provisioning_token, ...facts } = parseBody(Body, raw);
    const publicKey = keyInHeader(proof);
    const { jti, rememberUntil } = await verify(proof, publicKey, "enroll", now());
    const result = await database.rpc("enroll_device", {
      public_key: publicKey,
      name: facts.name,
      jti,
      assertion_expires_at: rememberUntil.toISOString(),
      client_address: clientAddress(request),
      // Hashed here, so that the token itself reaches no statement log.
      token_hash: provisioning_token ? await sha256Hex(provisioning_token) : null,
      hardware_model: facts.hardware_model ?? null,
      os: facts.os ?? null,
      labels: facts.labels ?? {},
    });
    const { created, ...device } = unwrapResult(result, Enrolled);
    console.log(
      `enroll: ${device.kind} ${device.device_id} ${created ? "new" : "again"} agent ${
        facts.agent_version ?? "?"
      }`,
    );
    return answer(created ? 201 : 200, device, now);
  });
}

/**
 * A device that enrolls with the key of another project, or with none, would spend its token and then be refused by
 * everything else.
 */
function requireProjectKey(request: Request, keys: readonly string[]) {
  if (keys.includes(request.headers.get("apikey") ?? "")) return;
  throw new Refusal(
    401,
    "publishable_key_invalid",
    "The publishable key is not one of this project.",
    "Use the command that `fleetctl token create` prints, or correct `publishable_key` in device.json.",
  );
}

async function sha256Hex(token: string): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(token));
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const handler: Handler = lazyHandler(
  "enroll",
  () =>
    makeHandler({
      database: databaseFromEnvironment(),
      now: () => new Date(),
      publishableKeys: publishableKeysFromEnvironment(),
    }),
);

if (import.meta.main) Deno.serve(handler);
