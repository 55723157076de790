// The SQL functions answer refusals as values, not as exceptions: an exception would roll back the very
// counters and used assertions that the refusal is about.

import { z } from "npm:zod@4.6.7";
import { Refusal } from "./http.ts";

const Verdict = z.looseObject({ kind: z.string() });

/** What each refusal of the SQL functions means over HTTP. */
const REFUSALS: Record<string, [status: number, message: string, hint: string]> = {
  rate_limited: [
    429,
    "There were too many requests from this device or its address.",
    "Wait as told in Retry-After.",
  ],
  pending_full: [
    429,
    "Too many devices wait to be accepted already.",
    "Ask an operator to accept or retire some, or enroll with a provisioning token.",
  ],
  assertion_replayed: [401, "The assertion was used before.", "Sign a new one for every request."],
  token_invalid: [
    401,
    "The provisioning token is not known, or was revoked.",
    "Ask an operator for a new one.",
  ],
  token_expired: [401, "The provisioning token has expired.", "Ask an operator for a new one."],
  token_used_up: [
    401,
    "The provisioning token has been used as often as it may be.",
    "Ask an operator for a new one.",
  ],
  device_pending: [
    403,
    "The device waits to be accepted.",
    "An operator accepts it: fleetctl device accept.",
  ],
  device_suspended: [403, "The device is suspended.", "An operator lifts it: fleetctl device activate."],
  device_retired: [
    403,
    "The device is retired.",
    "It stays so; enroll with a new key to use the machine again.",
  ],
};

/** Parse what a SQL function answered; throws the Refusal when it is one, or when the answer is unknown. */
export function accepted<T>(value: unknown, schema: z.ZodType<T>): T {
  const verdict = Verdict.parse(value);
  const refusal = REFUSALS[verdict.kind];
  if (!refusal) return schema.parse(value);
  const [status, message, hint] = refusal;
  const kind = verdict.kind === "pending_full" ? "rate_limited" : verdict.kind;
  throw new Refusal(status, kind, message, hint, z.number().optional().parse(verdict.retry_after_s));
}
