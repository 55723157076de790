// Proof that the caller holds a device's private key, now: a compact JWS (EdDSA) that lives two minutes at most
// and carries a `jti` which the database accepts once.

import * as jose from "npm:jose@6.2.18";
import { z } from "npm:zod@4.6.7";
import { Refusal } from "./http.ts";

/** Longest life of an assertion, and how far two correct clocks may differ, in seconds. */
const MAX_LIFETIME_S = 120;
const LEEWAY_S = 30;

const KEY_BYTES = 32;

/** The prime of the curve's field, and the five y of its eight points whose order is small (2, 4, 8) or one. */
const P = 2n ** 255n - 19n;
const SMALL_ORDER_Y = new Set([
  0n,
  1n,
  P - 1n,
  2707385501144840649318225287225658788936804267575313519463743609750303402022n,
  55188659117513257062467267217118295137698188065244968500265048394206261417927n,
]);

const PublicJwk = z.object({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: z.string().max(64) });

const Claims = z.object({
  aud: z.string(),
  iat: z.number().int().positive(),
  exp: z.number().int().positive(),
  jti: z.string().regex(/^[A-Za-z0-9_-]{16,64}$/),
  iss: z.string().optional(),
  sub: z.string().optional(),
});

export interface Assertion {
  jti: string;
  /** Until when the `jti` must be remembered, so that a replay is always either known or stale. */
  rememberUntil: Date;
}

/** The public key that a proof carries in its header, base64url; nothing is verified yet. */
export function keyInHeader(proof: string): string {
  const header = attempt(() => jose.decodeProtectedHeader(proof), "is not a compact JWS");
  const jwk = PublicJwk.safeParse(header.jwk);
  if (!jwk.success || "d" in (header.jwk as object)) {
    throw invalid("has no public Ed25519 key in its header (jwk)");
  }
  const raw = attempt(() => jose.base64url.decode(jwk.data.x), "has a key that is not base64url");
  if (raw.byteLength !== KEY_BYTES) throw invalid("has a key that is not 32 bytes long");
  // Encoded again, because one key must have one spelling: it identifies the device.
  return jose.base64url.encode(raw);
}

/** The device id that an assertion claims to come from; nothing is verified yet. */
export function claimedDevice(assertion: string): string {
  const claims = attempt(() => jose.decodeJwt(assertion), "is not a compact JWS with claims");
  const id = z.guid().safeParse(claims.sub);
  if (!id.success || claims.iss !== claims.sub) throw invalid("does not name a device in iss and sub");
  return id.data.toLowerCase();
}

/**
 * Verify signature, audience and freshness. Throws Refusal: `assertion_invalid`, or `assertion_stale` only if
 * the signature is good, because only then does a new one with the server's time help.
 */
export async function verify(
  assertion: string,
  publicKey: string,
  audience: string,
  now: Date,
): Promise<Assertion> {
  requireSafeKey(publicKey);
  const payload = await verifiedPayload(assertion, publicKey);
  const claims = Claims.safeParse(
    attempt(() => JSON.parse(new TextDecoder().decode(payload)), "does not contain JSON"),
  );
  if (!claims.success) throw invalid("lacks a claim; it needs aud, iat, exp, and jti (16 to 64 characters)");
  const { aud, iat, exp, jti } = claims.data;
  if (aud !== audience) throw invalid(`is for "${aud.slice(0, 40)}", not for "${audience}"`);
  if (exp <= iat || exp - iat > MAX_LIFETIME_S) {
    throw invalid(`must expire at most ${MAX_LIFETIME_S} seconds after it was issued`);
  }
  const seconds = now.getTime() / 1000;
  if (seconds > exp + LEEWAY_S || iat > seconds + LEEWAY_S) {
    const distance = Math.round(seconds - iat);
    throw new Refusal(
      401,
      "assertion_stale",
      `The assertion was issued ${Math.abs(distance)} s ${
        distance < 0 ? "ahead of" : "behind"
      } the server's time.`,
      "Sign a new one, using the time in server_time.",
    );
  }
  return { jti, rememberUntil: new Date((exp + 2 * LEEWAY_S) * 1000) };
}

/** With a key of small order anybody signs anything; and one point must have one spelling. */
function requireSafeKey(publicKey: string) {
  const bytes = jose.base64url.decode(publicKey);
  // The last bit is the sign of x.
  const y = bytes.reduceRight(
    (sum, byte, at) => sum * 256n + BigInt(at === KEY_BYTES - 1 ? byte & 127 : byte),
    0n,
  );
  if (y >= P || SMALL_ORDER_Y.has(y)) {
    throw invalid("has a key that proves nothing (of small order, or not canonical)");
  }
}

async function verifiedPayload(assertion: string, publicKey: string): Promise<Uint8Array> {
  try {
    const key = await jose.importJWK({ kty: "OKP", crv: "Ed25519", x: publicKey }, "EdDSA");
    return (await jose.compactVerify(assertion, key, { algorithms: ["EdDSA"] })).payload;
  } catch {
    throw invalid("is not signed by this device's key");
  }
}

/** One kind and one hint for everything that is wrong with an assertion; `what` completes the sentence. */
export function invalid(what: string): Refusal {
  return new Refusal(
    401,
    "assertion_invalid",
    `The assertion ${what}.`,
    "If the device's key or id was replaced, enroll it again.",
  );
}

function attempt<T>(parse: () => T, what: string): T {
  try {
    return parse();
  } catch {
    throw invalid(what);
  }
}
