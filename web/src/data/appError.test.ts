import { equal } from "../testing/assert.ts";
import { AppError, passes, toAppError } from "./appError.ts";

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

Deno.test("an outage of PostgREST is not a refusal: it is said in words, and asked again", () => {
  for (
    const outage of [
      { code: "PGRST000", status: 503, message: "Database connection error. Retrying the connection." },
      { code: "PGRST002", status: 503, message: "Could not query the database for the schema cache." },
      { code: "PGRST003", status: 504, message: "Timed out acquiring connection from connection pool." },
      { code: "57P03", status: 503, message: "the database system is starting up" },
      { status: 502, message: "<html>Bad Gateway</html>" },
    ]
  ) {
    equal(shown(outage).kind, "unavailable");
    equal(shown(outage).message, "The control plane is not reachable: its database does not respond.");
    equal(passes(outage), true);
  }
  equal(passes({ code: "PT403", status: 403, details: "rank_too_low", message: "No." }), false);
});

Deno.test("an expired token asks to sign in again", () => {
  equal(shown({ code: "PGRST303", message: "JWT expired" }).hint, "Sign in again.");
});

Deno.test("a refusal without a message still gets one, and an AppError is passed on", () => {
  equal(shown({}).kind, "refused");
  const known = new AppError("a_kind", "A sentence.");
  equal(toAppError(known), known);
});
