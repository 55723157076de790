/** How fresh the page is, in words: what the live channel does and when the lists were read last. */
import { span } from "../format/time.ts";

/** `joining`: first try. `live`: changes arrive by themselves. `lost`: it was there, and is being fetched back. */
export type ChannelState = "joining" | "live" | "lost";

export interface ConnectionStatus {
  word: "Live" | "Connecting" | "Polling" | "Stale";
  tone: "good" | "busy" | "warn" | "bad";
  sentence: string;
}

export interface ConnectionFacts {
  channel: ChannelState;
  /** When the lists were last read without an error, milliseconds; 0 = never. */
  readAt: number;
  /** The last read failed. */
  failing: boolean;
  pollSeconds: number;
}

/** A read may be this many polls old before the page calls itself stale. */
const STALE_AFTER_POLLS = 2;

/** What the indicator shows at `now`. Data that may be old says so, whatever the channel claims. */
export function connectionStatus(facts: ConnectionFacts, now: number): ConnectionStatus {
  const { channel, readAt, failing, pollSeconds } = facts;
  const age = now - readAt;
  if (readAt > 0 && (failing || age > STALE_AFTER_POLLS * pollSeconds * 1000) && channel !== "live") {
    return {
      word: "Stale",
      tone: "bad",
      sentence: `The control plane does not answer. What you see is ${span(age)} old; the page keeps trying.`,
    };
  }
  if (channel === "live") {
    return { word: "Live", tone: "good", sentence: "Changes show up by themselves within a second." };
  }
  if (channel === "lost" && readAt > 0) {
    return {
      word: "Polling",
      tone: "warn",
      sentence: `The live channel is down; the lists are read every ${
        span(pollSeconds * 1000)
      } until it is back.`,
    };
  }
  return { word: "Connecting", tone: "busy", sentence: "Opening the live channel." };
}

/** How often the lists are read: as configured while live, and never slower than this without the channel. */
export const POLL_WITHOUT_CHANNEL_S = 15;

export function pollEvery(channel: ChannelState, pollSeconds: number): number {
  return channel === "live" ? pollSeconds : Math.min(pollSeconds, POLL_WITHOUT_CHANNEL_S);
}

/** Wait before joining again, milliseconds: doubling to a minute, and a random half of it, so that dashboards spread. */
export function rejoinAfter(failures: number, random: number): number {
  const full = Math.min(60_000, 1000 * 2 ** Math.min(failures, 10));
  return full / 2 + (full / 2) * random;
}
