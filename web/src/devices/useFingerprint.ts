import { useQuery } from "@tanstack/react-query";
import { fingerprint } from "./fingerprint.ts";

/** The fingerprint of a key; undefined while it is computed, null if this browser cannot tell. */
export function useFingerprint(publicKey: string | null) {
  return useQuery({
    queryKey: ["fingerprint", publicKey],
    queryFn: () => publicKey === null ? null : fingerprint(publicKey),
    staleTime: Infinity,
  }).data;
}
