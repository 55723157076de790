/** What both framings carry. A wire topic is `realtime:<topic>`. */

export type Ref = string | number | null;

export interface Incoming {
  joinRef: Ref;
  ref: Ref;
  topic: string;
  event: string;
  payload: unknown;
}

/** A broadcast that a v2 client sent as a binary frame; `body` is JSON text or opaque bytes. */
export class UserPush {
  constructor(
    readonly event: string,
    readonly encoding: "json" | "binary",
    readonly body: Uint8Array,
  ) {}
}

export interface Outgoing {
  joinRef: Ref;
  ref: Ref;
  topic: string;
  event: string;
  payload: unknown;
}

/** A broadcast on its way to many channels, encoded once for each framing. */
export type Broadcast =
  /** The `broadcast` payload as a whole, as a v1 client or the REST batch call sent it. */
  | { kind: "whole"; payload: Record<string, unknown> }
  /** Event and body apart; v2 gets it as a binary frame. `body` of a JSON one is its text. */
  | { kind: "json"; event: string; body: string; meta?: BroadcastMeta }
  /** Only v2 can carry bytes; v1 clients do not get it. */
  | { kind: "binary"; event: string; body: Uint8Array; meta?: BroadcastMeta };

export interface BroadcastMeta {
  id: string;
  replayed?: true;
}

export type Frame = string | Uint8Array<ArrayBuffer>;

export interface Framing {
  readonly version: "1.0.0" | "2.0.0";
  /** Raises FrameError when the frame is not of this framing. */
  decode(data: string | ArrayBuffer): Incoming;
  encode(message: Outgoing): string;
  /** The frame for every member of `topic`, or null when this framing cannot carry the broadcast. */
  broadcast(topic: string, message: Broadcast): Frame | null;
}

export class FrameError extends Error {}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function asRef(value: unknown): Ref {
  return typeof value === "string" || typeof value === "number" ? value : null;
}
