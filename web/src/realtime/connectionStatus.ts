/** How fresh the page is, in words: whether the live connection works and when the lists were last loaded. */
import { span } from "../format/time.ts";

/** `joining`: first attempt. `live`: changes arrive by themselves. `lost`: being restored. */
export type ChannelState = "joining" | "live" | "lost";

export interface ConnectionStatus {
  word: "Live" | "Connecting" | "Polling" | "Stale";
  tone: "good" | "busy" | "warn" | "bad";
  sentence: string;
}

export interface ConnectionFacts {
  channel: ChannelState;
  /** When the lists were last loaded without an error, milliseconds; 0 = never. */
  readAt: number;
  /** The last load failed. */
  failing: boolean;
  pollSeconds: number;
}

/** Data may be this many polls old before the page calls itself stale. */
const STALE_AFTER_POLLS = 2;

/** What the indicator shows at `now`. Data that may be old is called stale. */
export function connectionStatus(facts: ConnectionFacts, now: number): ConnectionStatus {
  const { channel, readAt, failing, pollSeconds } = facts;
  const age = now - readAt;
  if (readAt > 0 && (failing || age > STALE_AFTER_POLLS * pollSeconds * 1000) && channel !== "live") {
    return {
      word: "Stale",
      tone: "bad",
      sentence: `The control plane is not responding. This data is ${span(age)} old. Retrying…`,
    };
  }
  if (channel === "live") {
    return { word: "Live", tone: "good", sentence: "Updates appear within a second." };
  }
  if (channel === "lost" && readAt > 0) {
    return {
      word: "Polling",
      tone: "warn",
      sentence: `The live connection is down. The lists reload every ${
        span(pollEvery(channel, pollSeconds) * 1000)
      } until it is back.`,
    };
  }
  return { word: "Connecting", tone: "busy", sentence: "Opening the live connection." };
}

/** How often the lists reload: as configured while live, and at least this often without the channel. */
export const POLL_WITHOUT_CHANNEL_S = 15;

export function pollEvery(channel: ChannelState, pollSeconds: number): number {
  return channel === "live" ? pollSeconds : Math.min(pollSeconds, POLL_WITHOUT_CHANNEL_S);
}

/** Wait before joining again, milliseconds: doubling to a minute, and a random half of it, so that dashboards spread. */
export function rejoinAfter(failures: number, random: number): number {
  const full = Math.min(60_000, 1000 * 2 ** Math.min(failures, 10));
  return full / 2 + (full / 2) * random;
}
