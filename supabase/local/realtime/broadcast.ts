/** Payloads that clients send: read, and measured. */
import { type Broadcast, isRecord, UserPush } from "./frames.ts";

/** A client's payload as a broadcast, or null if it cannot be read. */
export function toBroadcast(payload: unknown): Broadcast | null {
  if (payload instanceof UserPush) {
    const { event, encoding, body } = payload;
    if (encoding === "binary") return { kind: "binary", event, body };
    const text = new TextDecoder().decode(body);
    try {
      // It will be spliced into frames to others, so it must be valid JSON, as it claims.
      JSON.parse(text);
    } catch {
      return null;
    }
    return { kind: "json", event, body: text };
  }
  return isRecord(payload) ? { kind: "whole", payload } : null;
}

/** The size of a payload in bytes of JSON, or of the binary body. */
export function bytesOf(payload: unknown): number {
  if (payload instanceof UserPush) return payload.body.length;
  return new TextEncoder().encode(JSON.stringify(payload)).length;
}
