/** Where the control plane is: `config.json` beside the page, read once when the page starts. */
import { AppError } from "../data/appError.ts";
import type { Address } from "../data/client.ts";

export interface Config extends Address {
  /** How often the lists are read again while the live channel works, seconds. */
  pollSeconds: number;
}

export const DEFAULT_POLL_SECONDS = 60;

/** Check what `config.json` said. `origin` is where the page came from: an empty or relative address means there. */
export function parseConfig(raw: unknown, origin: string): Config {
  if (typeof raw !== "object" || raw === null) throw broken("it is not a JSON object");
  const { supabaseUrl = "", publishableKey, pollSeconds = DEFAULT_POLL_SECONDS } = raw as Record<
    string,
    unknown
  >;
  if (typeof supabaseUrl !== "string") throw broken("supabaseUrl is not text");
  if (typeof publishableKey !== "string" || publishableKey === "") throw broken("publishableKey is missing");
  if (publishableKey.startsWith("sb_secret_")) {
    throw broken(
      "publishableKey is a secret key, which no browser may see; replace that key, it has been published",
    );
  }
  if (typeof pollSeconds !== "number" || !(pollSeconds >= 5 && pollSeconds <= 86_400)) {
    throw broken("pollSeconds is not a number from 5 to 86400");
  }
  let url: URL;
  try {
    url = new URL(supabaseUrl, origin);
  } catch {
    throw broken("supabaseUrl is not an address");
  }
  return { supabaseUrl: url.href.replace(/\/+$/, ""), publishableKey, pollSeconds };
}

/** Read `config.json`. Fails with a AppError that a person can act on. */
export async function loadConfig(page: Location, get: typeof fetch = fetch): Promise<Config> {
  const address = new URL("config.json", page.href.replace(/[?#].*$/, ""));
  let raw: unknown;
  try {
    const answer = await get(address, { cache: "no-store" });
    if (!answer.ok) throw broken(`the server answers ${answer.status}`);
    raw = await answer.json();
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw broken("it cannot be read as JSON");
  }
  return parseConfig(raw, page.origin);
}

function broken(why: string): AppError {
  return new AppError(
    "config_invalid",
    `The dashboard's config.json cannot be used: ${why}.`,
    'It is a file beside index.html with {"supabaseUrl": "https://…", "publishableKey": "sb_publishable_…"}; ' +
      "docs/usage/dashboard.md describes it.",
  );
}
