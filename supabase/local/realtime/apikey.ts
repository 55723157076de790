import { TokenError, type Tokens } from "./jwt.ts";

/** Hosted caps connections without a user's token at 24 hours; so does the token an API key is swapped for. */
const KEY_TOKEN_S = 86_400;
/** The roles whose JWT is an API key. A user or device token is not one, and hosted refuses it too. */
const KEY_ROLES = ["anon", "service_role"];

export class KeyRefused extends Error {
  constructor(readonly status: number, message: string, readonly hint?: string) {
    super(message);
  }
}

/** What the hosted gateway does before Realtime sees a request: turns an API key into a role's JWT. */
export class ApiKeys {
  constructor(
    private readonly tokens: Tokens,
    private readonly publishableKey: string,
    private readonly secretKey: string,
  ) {}

  /** The JWT that `key` stands for; raises KeyRefused. */
  async token(key: string | null): Promise<string> {
    if (!key) throw new KeyRefused(401, "API key is missing");
    if (same(key, this.publishableKey)) return await this.tokens.mint("anon", KEY_TOKEN_S);
    if (same(key, this.secretKey)) return await this.tokens.mint("service_role", KEY_TOKEN_S);
    if (key.startsWith("sb_")) {
      throw new KeyRefused(401, "Invalid API key", "Double check the project's publishable or secret key.");
    }
    try {
      const { role } = await this.tokens.verify(key);
      if (KEY_ROLES.includes(role)) return key;
    } catch (error) {
      throw refusal(error);
    }
    throw new KeyRefused(
      401,
      "Invalid API key",
      "A user or device token is not an API key. Connect with the publishable key and send the token when joining.",
    );
  }
}

function refusal(error: unknown): KeyRefused {
  if (!(error instanceof TokenError)) throw error;
  if (error.fault === "invalid") return new KeyRefused(500, "Error connecting to Realtime");
  return new KeyRefused(401, error.fault === "expired" ? "Token has expired" : error.message);
}

/** Compares in constant time, so that timing does not reveal how much of a key was right. */
function same(left: string, right: string): boolean {
  if (left.length !== right.length) return false;
  let difference = 0;
  for (let at = 0; at < left.length; at++) difference |= left.charCodeAt(at) ^ right.charCodeAt(at);
  return difference === 0;
}
