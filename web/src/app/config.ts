/** Where the control plane is: `config.json` next to the page, read once when the page starts. */
import { AppError } from "../data/appError.ts";
import type { Address } from "../data/client.ts";

export interface Config extends Address {
  /** How often the lists are reloaded while the live connection works, seconds. */
  pollSeconds: number;
}

export const DEFAULT_POLL_SECONDS = 60;

/** Check the content of `config.json`. An empty or relative address is resolved against `origin`, the page's own. */
export function parseConfig(raw: unknown, origin: string): Config {
  if (typeof raw !== "object" || raw === null) throw invalid("it is not a JSON object");
  const { supabaseUrl = "", publishableKey, pollSeconds = DEFAULT_POLL_SECONDS } = raw as Record<
    string,
    unknown
  >;
  if (typeof supabaseUrl !== "string") throw invalid("supabaseUrl must be a string");
  if (typeof publishableKey !== "string" || publishableKey === "") throw invalid("publishableKey is missing");
  if (publishableKey.startsWith("sb_secret_")) {
    throw invalid(
      "publishableKey is a secret key, which must never reach a browser; replace that key, because it is now public",
    );
  }
  if (typeof pollSeconds !== "number" || !(pollSeconds >= 5 && pollSeconds <= 86_400)) {
    throw invalid("pollSeconds must be a number from 5 to 86400");
  }
  let url: URL;
  try {
    url = new URL(supabaseUrl, origin);
  } catch {
    throw invalid("supabaseUrl is not a valid URL");
  }
  return { supabaseUrl: url.href.replace(/\/+$/, ""), publishableKey, pollSeconds };
}

/** Read `config.json`. Throws an AppError that says what to fix. */
export async function loadConfig(page: Location, get: typeof fetch = fetch): Promise<Config> {
  const address = new URL("config.json", page.href.replace(/[?#].*$/, ""));
  let raw: unknown;
  try {
    const answer = await get(address, { cache: "no-store" });
    if (!answer.ok) throw invalid(`the server responded with status ${answer.status}`);
    raw = await answer.json();
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw invalid("it could not be read as JSON");
  }
  return parseConfig(raw, page.origin);
}

function invalid(why: string): AppError {
  return new AppError(
    "config_invalid",
    `The dashboard's config.json is not valid: ${why}.`,
    'It is a file next to index.html that contains {"supabaseUrl": "https://…", "publishableKey": "sb_publishable_…"}; ' +
      "see docs/usage/dashboard.md.",
  );
}
