import {
  asRef,
  type Broadcast,
  type Frame,
  FrameError,
  type Framing,
  type Incoming,
  type Outgoing,
  UserPush,
} from "./frames.ts";

const USER_BROADCAST_PUSH = 3;
const USER_BROADCAST = 4;
const BINARY = 0;
const JSON_BODY = 1;
/** Each length in a binary frame's head is one byte. */
const LONGEST = 255;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Protocol 2.0.0, which supabase-js speaks: JSON arrays, and binary frames for broadcasts. */
export const V2: Framing = {
  version: "2.0.0",

  decode(data: string | ArrayBuffer): Incoming {
    return typeof data === "string" ? decodeText(data) : decodeBinary(new Uint8Array(data));
  },

  encode({ joinRef, ref, topic, event, payload }: Outgoing): string {
    return JSON.stringify([joinRef, ref, topic, event, payload]);
  },

  broadcast(topic: string, message: Broadcast): Frame | null {
    switch (message.kind) {
      case "whole":
        return JSON.stringify([null, null, topic, "broadcast", message.payload]);
      case "json":
        return encodeBinary(topic, message.event, message.meta, JSON_BODY, encoder.encode(message.body));
      case "binary":
        return encodeBinary(topic, message.event, message.meta, BINARY, message.body);
    }
  },
};

function decodeText(data: string): Incoming {
  let message: unknown;
  try {
    message = JSON.parse(data);
  } catch {
    throw new FrameError("the frame is not JSON");
  }
  if (!Array.isArray(message) || message.length < 5) {
    throw new FrameError("the frame is not an array of five");
  }
  const [joinRef, ref, topic, event, payload] = message;
  if (typeof topic !== "string" || typeof event !== "string") {
    throw new FrameError("the frame needs a topic and an event");
  }
  return { joinRef: asRef(joinRef), ref: asRef(ref), topic, event, payload };
}

/** `[3][join_ref][ref][topic][event][meta][encoding]`, lengths first, then the fields, then the body. */
function decodeBinary(bytes: Uint8Array): Incoming {
  if (bytes[0] !== USER_BROADCAST_PUSH || bytes.length < 7) throw new FrameError("unknown binary frame");
  const encoding = bytes[6];
  let offset = 7;
  const take = (length: number): string => {
    if (offset + length > bytes.length) {
      throw new FrameError("the binary frame is shorter than its lengths say");
    }
    return decoder.decode(bytes.subarray(offset, offset += length));
  };
  const joinRef = take(bytes[1]);
  const ref = take(bytes[2]);
  const topic = take(bytes[3]);
  const event = take(bytes[4]);
  take(bytes[5]); // Metadata: hosted reads it and uses none of it either, but for storing messages.
  const body = bytes.slice(offset);
  const payload = new UserPush(event, encoding === JSON_BODY ? "json" : "binary", body);
  return { joinRef: joinRef || null, ref: ref || null, topic, event: "broadcast", payload };
}

/** `[4][topic][event][meta][encoding]`, lengths first; null when a field is longer than a byte can say. */
function encodeBinary(
  topic: string,
  event: string,
  meta: unknown,
  encoding: number,
  body: Uint8Array,
): Frame | null {
  const fields = [topic, event, meta ? JSON.stringify(meta) : ""].map((field) => encoder.encode(field));
  if (fields.some((field) => field.length > LONGEST)) return null;
  const size = 5 + fields.reduce((sum, field) => sum + field.length, 0);
  const frame = new Uint8Array(size + body.length);
  frame.set([USER_BROADCAST, fields[0].length, fields[1].length, fields[2].length, encoding]);
  let offset = 5;
  for (const part of [...fields, body]) {
    frame.set(part, offset);
    offset += part.length;
  }
  return frame;
}
