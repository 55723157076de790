// POST device-token: a device proves who it is with a fresh assertion and gets the JWT that it uses for REST and
// Realtime. It calls the database twice: for the key before verifying, and to use up the assertion after, so
// that only the key's holder can use up a device's assertions or its allowance.

import { z } from "npm:zod@4.6.7";
import { claimedDevice, invalid, verify } from "../_shared/assertion.ts";
import { parseBody } from "../_shared/body.ts";
import type { Database } from "../_shared/database.ts";
import { databaseFromEnvironment, requiredVariable } from "../_shared/environment.ts";
import {
  answer,
  clientAddress,
  type Clock,
  type Handler,
  lazyHandler,
  postEndpoint,
} from "../_shared/http.ts";
import { type Signer, signerFrom } from "../_shared/signing.ts";
import { unwrapResult } from "../_shared/sql_refusals.ts";

export interface Deps {
  database: Database;
  now: Clock;
  signer: () => Promise<Signer>;
}

const Body = z.object({ assertion: z.string().max(4096) });
const Found = z.object({
  kind: z.enum(["found", "unknown"]),
  public_key: z.string().nullable(),
  key_number: z.number().int().default(1),
});
const Granted = z.object({ kind: z.literal("granted"), ttl_s: z.number().int().positive() });

export function makeHandler({ database, now, signer }: Deps): Handler {
  return postEndpoint("device-token", now, async (raw, request) => {
    const { assertion } = parseBody(Body, raw);
    const deviceId = claimedDevice(assertion);

    const found = unwrapResult(
      await database.rpc("begin_device_token", {
        device_id: deviceId,
        client_address: clientAddress(request),
      }),
      Found,
    );
    // An unknown device gets the same answer as a wrong key: callers must not learn which devices are enrolled.
    if (found.public_key === null) throw invalid("is not signed by this device's key");
    const { jti, rememberUntil } = await verify(assertion, found.public_key, "device-token", now());

    const result = await database.rpc("finish_device_token", {
      device_id: deviceId,
      jti,
      assertion_expires_at: rememberUntil.toISOString(),
      key_number: found.key_number,
    });
    const { ttl_s } = unwrapResult(result, Granted);
    const issued = now();
    return answer(200, {
      access_token: await (await signer()).sign(
        { role: "fleet_device", sub: deviceId, key_number: found.key_number },
        issued,
        ttl_s,
      ),
      // As the JWT has it: whole seconds.
      expires_at: new Date((Math.floor(issued.getTime() / 1000) + ttl_s) * 1000).toISOString(),
      expires_in: ttl_s,
    }, now);
  });
}

export const handler: Handler = lazyHandler("device-token", () => {
  const jwk = requiredVariable("FLEET_SIGNING_JWK");
  let signer: Promise<Signer> | undefined;
  return makeHandler({
    database: databaseFromEnvironment(),
    now: () => new Date(),
    signer: () => signer ??= signerFrom(jwk),
  });
});

if (import.meta.main) Deno.serve(handler);
