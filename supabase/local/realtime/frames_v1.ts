import {
  asRef,
  type Broadcast,
  type Frame,
  FrameError,
  type Framing,
  type Incoming,
  isRecord,
  type Outgoing,
} from "./frames.ts";

/** Protocol 1.0.0, which the Python client speaks: one JSON object a frame, text only. */
export const V1: Framing = {
  version: "1.0.0",

  decode(data: string | ArrayBuffer): Incoming {
    if (typeof data !== "string") throw new FrameError("protocol 1.0.0 has no binary frames");
    let message: unknown;
    try {
      message = JSON.parse(data);
    } catch {
      throw new FrameError("the frame is not JSON");
    }
    if (!isRecord(message) || typeof message.topic !== "string" || typeof message.event !== "string") {
      throw new FrameError("the frame needs a topic and an event");
    }
    const { topic, event, payload } = message;
    return { joinRef: asRef(message.join_ref), ref: asRef(message.ref), topic, event, payload };
  },

  // Frames to a v1 client carry no join_ref.
  encode({ topic, event, payload, ref }: Outgoing): string {
    return JSON.stringify({ topic, event, payload, ref });
  },

  broadcast(topic: string, message: Broadcast): Frame | null {
    const head = `{"topic":${JSON.stringify(topic)},"event":"broadcast","ref":null,"payload":`;
    switch (message.kind) {
      case "whole":
        return `${head}${JSON.stringify(message.payload)}}`;
      case "json": {
        // The body is spliced in as text: parsing and printing it again would cost most of a fan-out's time.
        const meta = message.meta ? `,"meta":${JSON.stringify(message.meta)}` : "";
        const event = JSON.stringify(message.event);
        return `${head}{"type":"broadcast","event":${event},"payload":${message.body}${meta}}}`;
      }
      case "binary":
        return null;
    }
  },
};
