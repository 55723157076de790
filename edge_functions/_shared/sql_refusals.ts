// The SQL functions answer refusals as values, not as exceptions: an exception would roll back the very
// counters and used assertions that the refusal is about.

import { z } from "npm:zod@4.6.7";
import { Refusal } from "./http.ts";

const Result = z.looseObject({ kind: z.string() });

/** What each refusal of the SQL functions means over HTTP. */
const REFUSALS: Record<string, [status: number, message: string, hint: string]> = {
  rate_limited: [
    429,
    "Too many requests from this device or its address.",
    "Wait as long as Retry-After says.",
  ],
  pending_full: [
    429,
    "Too many devices are already waiting to be accepted.",
    "Ask an operator to accept or retire some, or enroll with a provisioning token.",
  ],
  assertion_replayed: [401, "The assertion has already been used.", "Sign a new one for each request."],
  token_invalid: [
    401,
    "The provisioning token does not exist or was revoked.",
    "Ask an operator for a new one.",
  ],
  token_expired: [401, "The provisioning token has expired.", "Ask an operator for a new one."],
  token_used_up: [
    401,
    "The provisioning token has reached its limit of uses.",
    "Ask an operator for a new one.",
  ],
  device_pending: [
    403,
    "The device is waiting to be accepted.",
    "Ask an operator to run `fleetctl device accept`.",
  ],
  device_suspended: [403, "The device is suspended.", "Ask an operator to run `fleetctl device activate`."],
  device_replaced: [
    403,
    "Another machine has taken this device's place.",
    "To use this one again, enroll it with a new key.",
  ],
  device_retired: [
    403,
    "The device is retired.",
    "This is permanent; to use the machine again, enroll it with a new key.",
  ],
};

/** Parse the result of a SQL function; throws a Refusal if it is one, or an error if the result is unknown. */
export function unwrapResult<T>(value: unknown, schema: z.ZodType<T>): T {
  const result = Result.parse(value);
  const refusal = REFUSALS[result.kind];
  if (!refusal) return schema.parse(value);
  const [status, message, hint] = refusal;
  const kind = result.kind === "pending_full" ? "rate_limited" : result.kind;
  throw new Refusal(status, kind, message, hint, z.number().optional().parse(result.retry_after_s));
}
