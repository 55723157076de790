// Request bodies stay `unknown` until a schema has parsed them.

import { z } from "npm:zod@4.6.7";
import { badRequest } from "./http.ts";

/** Parse a body; throws a `bad_request` Refusal that names each invalid field and the reason, never its value. */
export function parseBody<T>(schema: z.ZodType<T>, body: unknown): T {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) => `${path.join(".") || "body"}: ${message}`);
  throw badRequest(
    `The request body is not valid: ${problems.join("; ")}.`,
    "See docs/usage/enrollment.md for the fields.",
  );
}
