/** Headers of every answer, whatever it is. */

const ALWAYS = {
  // A browser must not take an answer of the API for a page or a script.
  "x-content-type-options": "nosniff",
  // An address of the dashboard names devices; it is nobody else's business.
  "referrer-policy": "no-referrer",
};
/** A year. Without subdomains: they may belong to something else. */
const HSTS = "max-age=31536000";

/** `behindTls`: the browser came by https, so it should not come any other way from now on. */
export function withSecurityHeaders(answer: Response, behindTls: boolean): Response {
  // The answer that opens a WebSocket is bound to its socket and cannot be copied.
  if (answer.status === 101) return answer;
  const headers = new Headers(answer.headers);
  for (const [name, value] of Object.entries(ALWAYS)) headers.set(name, value);
  if (behindTls) headers.set("strict-transport-security", HSTS);
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}
