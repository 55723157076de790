/** The dashboard's Content-Security-Policy for this server's address; scripts/fleetctl/stack/dashboard_export.py has the same for other hosts. */

const META = /<meta http-equiv="Content-Security-Policy" content="([^"]*)">/;

/** The policy that the build wrote into its page, narrowed to the control plane at `origin`. */
export function policyFor(page: string, origin: string): string {
  const socket = origin.replace(/^http/, "ws");
  const built = (META.exec(page)?.[1] ?? "").replaceAll("&#39;", "'");
  const narrowed = built.replace(/connect-src [^;]*/, `connect-src 'self' ${socket}`);
  // Only a header may say this.
  return [narrowed, "frame-ancestors 'none'"].filter((directive) => directive !== "").join("; ");
}
