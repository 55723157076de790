// Minting device tokens with the project's own key: ES256 with an imported key on hosted Supabase, HS256 with
// the JWT secret on the embedded stack. The JWK itself says which one.

import * as jose from "npm:jose@6.2.18";

export interface Signer {
  /** A JWT for `claims`, valid from `issued` for `lifetimeS` seconds. */
  sign(claims: Record<string, unknown>, issued: Date, lifetimeS: number): Promise<string>;
}

/** Throws when the JWK is not a private EC P-256 key or an oct key of 32 bytes or more. */
export async function signerFrom(jwkText: string): Promise<Signer> {
  // `supabase gen signing-key` writes key_ops ["sign","verify"], which WebCrypto refuses for a private key.
  const { key_ops: _ops, use: _use, ext: _ext, ...jwk } = JSON.parse(jwkText) as jose.JWK;
  const alg = algorithm(jwk);
  const key = await jose.importJWK(jwk, alg);
  const header = { alg, typ: "JWT", ...(jwk.kid ? { kid: jwk.kid } : {}) };
  return {
    sign(claims, issued, lifetimeS) {
      const seconds = Math.floor(issued.getTime() / 1000);
      return new jose.SignJWT(claims)
        .setProtectedHeader(header)
        .setIssuedAt(seconds)
        .setExpirationTime(seconds + lifetimeS)
        .sign(key);
    },
  };
}

function algorithm(jwk: jose.JWK): "ES256" | "HS256" {
  if (jwk.kty === "EC" && jwk.crv === "P-256" && jwk.d) {
    // Realtime and PostgREST find the verifying key by kid; without one hosted Realtime refuses the token.
    if (!jwk.kid) throw new Error("FLEET_SIGNING_JWK is an EC key without a kid");
    return "ES256";
  }
  if (jwk.kty === "oct" && jwk.k && jose.base64url.decode(jwk.k).byteLength >= 32) return "HS256";
  throw new Error("FLEET_SIGNING_JWK must be a private P-256 key, or an oct key of at least 32 bytes");
}
