/**
 * Which tokens REST takes: what PostgREST 14 (src/PostgREST/Auth/Jwt.hs) refuses and Lite would let pass is refused
 * here, in PostgREST's words. Lite checks the token as well, and is stricter about times.
 */
import { decodeJwt, decodeProtectedHeader, jwtVerify } from "jose";

const SKEW_S = 30;

interface Refusal {
  code: string;
  message: string;
  details?: string;
}

/** The answer to a request whose token counts for nothing, or null. A request without one is its API key's. */
export function tokenGuard(jwtSecret: string): (request: Request) => Promise<Response | null> {
  const key = new TextEncoder().encode(jwtSecret);
  return async (request) => {
    const token = /^bearer (.*)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
    // An API key in its place is the gateway's business.
    if (token === undefined || token.startsWith("sb_")) return null;
    const refused = await refusalOf(token.trim(), key);
    return refused && answer(refused);
  };
}

async function refusalOf(token: string, key: Uint8Array): Promise<Refusal | null> {
  if (token === "") return undecodable("Empty JWT is sent in Authorization header");
  const parts = token.split(".").length;
  if (parts !== 3) return undecodable(`Expected 3 parts in JWT; got ${parts}`);
  let header: Record<string, unknown>;
  try {
    header = decodeProtectedHeader(token) as Record<string, unknown>;
  } catch {
    return undecodable("JWT cryptographic operation failed");
  }
  if (header.alg === "none") {
    return undecodable(
      "Wrong or unsupported encoding algorithm",
      "JWT is unsecured but expected 'alg' was not 'none'",
    );
  }
  // The stack's key has no id: a token that names one asks for another key.
  if (header.kid !== undefined) return noKey("No suitable key was found to decode the JWT");
  let claims: Record<string, unknown>;
  try {
    // The signature alone; PostgREST's rules for the claims follow.
    await jwtVerify(token, key, { algorithms: ["HS256"], currentDate: new Date(0) });
    claims = decodeJwt(token);
  } catch (error) {
    const code = (error as { code?: string }).code ?? "";
    if (!/^ERR_JWT_(EXPIRED|CLAIM)/.test(code)) return noKey("None of the keys was able to decode the JWT");
    claims = decodeJwt(token);
  }
  return refusedClaim(claims, Math.floor(Date.now() / 1_000)) ?? refusedRole(claims.role);
}

function refusedClaim({ exp, nbf, iat, aud }: Record<string, unknown>, now: number): Refusal | null {
  for (const [name, value] of Object.entries({ exp, nbf, iat })) {
    if (value != null && typeof value !== "number") return claim(`The JWT '${name}' claim must be a number`);
  }
  if (exp != null && whole(exp) < now - SKEW_S) return claim("JWT expired");
  if (nbf != null && whole(nbf) > now + SKEW_S) return claim("JWT not yet valid");
  if (iat != null && whole(iat) > now + SKEW_S) return claim("JWT issued at future");
  if (aud != null && typeof aud !== "string" && !isTexts(aud)) {
    return claim("The JWT 'aud' claim must be a string or an array of strings");
  }
  return null;
}

/** PostgREST takes what is not a whole number for 0: expired long ago. */
function whole(value: unknown): number {
  return Number.isSafeInteger(value) ? value as number : 0;
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((one) => typeof one === "string");
}

/** PostgREST becomes the role of that name, whatever the claim is; Lite would read a list as the name in it. */
function refusedRole(role: unknown): Refusal | null {
  if (role === undefined || typeof role === "string" && role !== "") return null;
  const name = typeof role === "string" ? role : JSON.stringify(role);
  return { code: "22023", message: `role "${name}" does not exist` };
}

const undecodable = (message: string, details?: string): Refusal => ({ code: "PGRST301", message, details });
const noKey = (details: string): Refusal => undecodable("No suitable key or wrong key type", details);
const claim = (message: string): Refusal => ({ code: "PGRST303", message });

function answer({ code, message, details }: Refusal): Response {
  const headers: Record<string, string> = {
    "access-control-allow-origin": "*",
    "proxy-status": `PostgREST; error=${code}`,
  };
  if (code.startsWith("PGRST")) {
    headers["www-authenticate"] = `Bearer error="invalid_token", error_description=${
      JSON.stringify(message)
    }`;
  }
  return Response.json({ code, message, details: details ?? null, hint: null }, { status: 401, headers });
}
