/** A device's key as people compare it; fleet_agent/support/fingerprint.py is the same on the device. */

/** The first half of the key's SHA-256, in groups of four digits; null where the browser offers no SHA-256. */
export async function fingerprint(publicKey: string): Promise<string | null> {
  // Over http, browsers have it only for addresses of this machine.
  const subtle: SubtleCrypto | undefined = globalThis.crypto.subtle;
  if (subtle === undefined) return null;
  const raw = Uint8Array.from(
    atob(publicKey.replaceAll("-", "+").replaceAll("_", "/")),
    (sign) => sign.charCodeAt(0),
  );
  const digest = new Uint8Array(await subtle.digest("SHA-256", raw)).slice(0, 16);
  const digits = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return (digits.match(/.{4}/g) ?? []).join("-");
}
