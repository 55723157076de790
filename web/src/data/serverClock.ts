/** The server's time, as its answers tell it. */

let offset = 0;

/** Server time minus this machine's, from the last answer's Date header, so that a wrong laptop clock cannot hide an offline device. */
export function learnServerTime(date: string | null, receivedAt = Date.now()): void {
  const server = date ? Date.parse(date) : Number.NaN;
  if (Number.isNaN(server)) return;
  const seen = server - receivedAt;
  // The header has whole seconds: smaller differences are its rounding and the way here.
  offset = Math.abs(seen) < 2000 ? 0 : seen;
}

/** Server time, milliseconds. */
export function serverNow(): number {
  return Date.now() + offset;
}
