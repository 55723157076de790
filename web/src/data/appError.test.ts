import { equal } from "../testing/assert.ts";
import { AppError, toAppError } from "./appError.ts";

const shown = (cause: unknown) => {
  const { kind, message, hint } = toAppError(cause);
  return { kind, message, hint };
};

Deno.test("a raise of ours keeps its kind, sentence and hint", () => {
  equal(
    shown({
      code: "PT403",
      message: "Viewers cannot halt.",
      details: "rank_too_low",
      hint: "Ask an operator.",
    }),
    { kind: "rank_too_low", message: "Viewers cannot halt.", hint: "Ask an operator." },
  );
});

Deno.test("details that are prose are not taken for a kind", () => {
  equal(shown({ code: "23503", message: "No.", details: "Key (role)=(x) is not present." }).kind, "23503");
});

Deno.test("a network failure is `unreachable`, however the browser words it", () => {
  for (
    const message of ["Failed to fetch", "NetworkError when attempting to fetch resource.", "Load failed"]
  ) {
    equal(shown(new TypeError(message)).kind, "unreachable");
  }
});

Deno.test("an expired token asks to sign in again", () => {
  equal(shown({ code: "PGRST303", message: "JWT expired" }).hint, "Sign in again.");
});

Deno.test("a refusal without a message still gets one, and an AppError is passed on", () => {
  equal(shown({}).kind, "refused");
  const known = new AppError("a_kind", "A sentence.");
  equal(toAppError(known), known);
});
