/** Every failure the dashboard shows: a stable kind, a sentence, and what to try. */

/** What PostgREST, Auth and our own SQL functions answer when they refuse. */
interface Refusal {
  message?: unknown;
  details?: unknown;
  hint?: unknown;
  code?: unknown;
  status?: unknown;
}

export class AppError extends Error {
  constructor(
    /** From a short list if our SQL raised it (`details`), otherwise the code received, `unreachable` or `unavailable`. */
    readonly kind: string,
    message: string,
    readonly hint: string = "",
  ) {
    super(message);
    this.name = "AppError";
  }
}

const KIND = /^[a-z][a-z0-9_]{1,62}$/;

/** Translate what a library threw or returned. Our raises carry the kind in `details`, the advice in `hint`. */
export function toAppError(cause: unknown): AppError {
  if (cause instanceof AppError) return cause;
  const refusal: Refusal = typeof cause === "object" && cause !== null ? cause : { message: cause };
  const message = text(refusal.message);
  const code = text(refusal.code);
  if (isUnreachable(refusal, message)) {
    return new AppError(
      "unreachable",
      "The control plane is not responding.",
      "Check your network; the dashboard retries automatically.",
    );
  }
  if (isOutage(refusal, code)) {
    return new AppError(
      "unavailable",
      "The control plane is not reachable: its database does not respond.",
      "This usually passes; the dashboard retries automatically.",
    );
  }
  if (code === "PGRST301" || code === "PGRST303" || code === "bad_jwt") {
    return new AppError("signed_out", "Your session has expired.", "Sign in again.");
  }
  const details = text(refusal.details);
  const kind = KIND.test(details) ? details : code || "refused";
  return new AppError(
    kind,
    message || "The control plane refused without giving a reason.",
    text(refusal.hint),
  );
}

function isUnreachable(refusal: Refusal, message: string): boolean {
  if (refusal.status === 0) return true;
  return /failed to fetch|networkerror|load failed|fetch failed/i.test(message);
}

/** PostgREST's own outages, and what a gateway or the database says instead: nothing was refused. */
function isOutage(refusal: Refusal, code: string): boolean {
  if (/^(PGRST00[0-3]|08...|57P0[1-3]|53300)$/.test(code)) return true;
  return code === "" && (refusal.status === 502 || refusal.status === 503 || refusal.status === 504);
}

/** Whether asking again may succeed without anything being changed. */
export function passes(error: unknown): boolean {
  return ["unreachable", "unavailable"].includes(toAppError(error).kind);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
