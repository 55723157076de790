/** Who sent a request, and how, if a proxy on this machine stands before the server. */

const LOOPBACK = /^(127\.|::1$|::ffff:127\.)/;

export function isLoopback(address: string): boolean {
  return LOOPBACK.test(address);
}

/** Only a proxy on this machine may say something about its caller: a header from elsewhere is the caller's own. */
function forwarded(request: Request, peer: string, header: string): string | undefined {
  return isLoopback(peer) ? request.headers.get(header)?.split(",").at(-1)?.trim() || undefined : undefined;
}

/**
 * The address that a caller cannot choose. Of several the last one: it is what the proxy saw, the others are what it
 * was told. Of IPv6 the network, because one customer has all of its addresses.
 */
export function callerAddress(request: Request, peer: string): string {
  const address = forwarded(request, peer, "x-forwarded-for") ?? peer;
  return address.includes(":") && !address.includes(".") ? network(address) : address;
}

/** Did the browser come by https, to a proxy before this server? */
export function isBehindTls(request: Request, peer: string): boolean {
  return forwarded(request, peer, "x-forwarded-proto")?.toLowerCase() === "https";
}

/** The address that the browser used: right behind any host name, port forward, tunnel or TLS proxy. */
export function originOf(request: Request, peer: string): string {
  const { host, protocol } = new URL(request.url);
  return `${isBehindTls(request, peer) ? "https:" : protocol}//${host}`;
}

/** The first 64 bits of an IPv6 address. */
function network(address: string): string {
  const [head, tail] = address.replace(/^\[|\].*$|%.*$/g, "").split("::");
  const left = head ? head.split(":") : [];
  const right = tail ? tail.split(":") : [];
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - left.length - right.length);
  const groups = [...left, ...Array(zeros).fill("0"), ...right].slice(0, 4);
  return groups.map((group) => group.replace(/^0+(?=.)/, "").toLowerCase()).join(":") + "::/64";
}
