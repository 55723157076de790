import { compactVerify, SignJWT } from "./deps.ts";
import { isRecord } from "./frames.ts";

export type Claims = Record<string, unknown> & { role: string; exp: number };

export type TokenFault = "malformed" | "signer" | "signature" | "expired" | "missing_claims" | "invalid";

/** Why a token does not count. `message` is what hosted Realtime says about it. */
export class TokenError extends Error {
  constructor(readonly fault: TokenFault, message: string) {
    super(message);
  }
}

const HMAC = ["HS256", "HS384", "HS512"];

/** Checks and mints the project's HS256 tokens. Only the shared secret: the embedded stack has no JWKS. */
export class Tokens {
  #key: Uint8Array;

  constructor(secret: string) {
    this.#key = new TextEncoder().encode(secret);
  }

  /** The claims of a token that counts at `now` (seconds); otherwise raises TokenError. */
  async verify(token: string, now = Math.floor(Date.now() / 1_000)): Promise<Claims> {
    const compact = clean(token);
    const [header, claims] = peek(compact);
    if (typeof header.alg !== "string" || !HMAC.includes(header.alg)) throw noSigner(header.kid);
    try {
      await compactVerify(compact, this.#key, { algorithms: HMAC });
    } catch {
      throw new TokenError("signature", "Failed to validate JWT signature");
    }
    return checked(claims, now);
  }

  /** A token for an API key, as the hosted gateway makes one of `sb_publishable_…` and `sb_secret_…`. */
  mint(role: string, seconds: number): Promise<string> {
    const now = Math.floor(Date.now() / 1_000);
    return new SignJWT({ role, iat: now, exp: now + seconds })
      .setProtectedHeader({ alg: "HS256", typ: "JWT" })
      .sign(this.#key);
  }
}

function clean(token: string): string {
  try {
    return decodeURIComponent(token).replaceAll(/\s/g, "");
  } catch {
    return token;
  }
}

function peek(token: string): [Record<string, unknown>, Record<string, unknown>] {
  const parts = token.split(".");
  if (parts.length !== 3) throw malformed();
  const claims = decodePart(parts[1]);
  if (!isRecord(claims)) throw new TokenError("invalid", "expected_claims_map");
  const header = decodePart(parts[0]);
  if (!isRecord(header)) throw new TokenError("invalid", "expected_header_map");
  return [header, claims];
}

function decodePart(part: string): unknown {
  try {
    const binary = atob(part.replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (char) => char.charCodeAt(0))));
  } catch {
    throw malformed();
  }
}

// Hosted checks the form of exp and iat first, then that role and exp are there at all.
function checked(claims: Record<string, unknown>, now: number): Claims {
  const { exp, iat, role } = claims;
  if (exp !== undefined) {
    if (typeof exp !== "number") throw new TokenError("invalid", "exp is not a number");
    if (exp <= now) throw new TokenError("expired", `Token has expired ${now - Math.round(exp)} seconds ago`);
  }
  if (iat !== undefined && typeof iat !== "number") throw new TokenError("invalid", "iat is not a number");
  if (role === undefined || exp === undefined) {
    throw new TokenError("missing_claims", "Fields `role` and `exp` are required in JWT");
  }
  if (typeof role !== "string") throw new TokenError("invalid", "role is not a string");
  return { ...claims, role, exp: Math.round(exp) };
}

function malformed(): TokenError {
  return new TokenError("malformed", "The token provided is not a valid JWT");
}

function noSigner(kid: unknown): TokenError {
  const which = typeof kid === "string" ? ` for key ID (kid) "${kid}"` : "";
  return new TokenError(
    "signer",
    `Failed to generate JWT signer${which}, check your JWT secret or JWKS configuration`,
  );
}
