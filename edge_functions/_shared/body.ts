// Request bodies stay `unknown` until a schema has parsed them.

import { z } from "npm:zod@4.6.7";
import { badRequest } from "./http.ts";

/** Parse a body; throws Refusal `bad_request` that names each field and what is wrong with it, never its value. */
export function parsed<T>(schema: z.ZodType<T>, body: unknown): T {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) => `${path.join(".") || "body"}: ${message}`);
  throw badRequest(
    `The body is not as agreed: ${problems.join("; ")}.`,
    "See docs/usage/enrollment.md for the fields.",
  );
}
