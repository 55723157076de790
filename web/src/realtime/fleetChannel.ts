/**
 * Keeps the private topic `fleet` joined. supabase-js does not join again after the server ends a channel (an
 * expired token, a rate limit), so every end is treated the same: leave, wait, join anew.
 */
import type { RealtimeChannel } from "@supabase/supabase-js";
import type { Client } from "../data/client.ts";
import { type Change, parseChange } from "./changes.ts";
import { type ChannelState, rejoinAfter } from "./connectionStatus.ts";

export interface ChannelListener {
  changed(change: Change): void;
  /** `live` also means: something may have been missed before it, read everything again. */
  state(state: ChannelState): void;
}

/** Join, and stay joined until the returned function is called. */
export function followFleet(client: Client, listener: ChannelListener): () => void {
  let channel: RealtimeChannel | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let ended = false;

  async function join(): Promise<void> {
    timer = undefined;
    // The channel is authorized with the token of this moment; without this it may be an expired one.
    await client.realtime.setAuth().catch(() => undefined);
    if (ended || channel) return;
    const joined = client.channel("fleet", { config: { private: true } });
    channel = joined;
    joined.on("broadcast", { event: "*" }, ({ event, payload }) => {
      const change = parseChange(event, payload);
      if (change && channel === joined) listener.changed(change);
    }).subscribe((status) => {
      if (channel !== joined || ended) return;
      if (status === "SUBSCRIBED") {
        failures = 0;
        listener.state("live");
      } else {
        leave();
        listener.state("lost");
        timer = setTimeout(() => void join(), rejoinAfter(failures++, Math.random()));
      }
    });
  }

  function leave(): void {
    const left = channel;
    channel = null;
    if (left) void client.removeChannel(left);
  }

  /** The network or the user is back: no reason to wait out the backoff. */
  function rejoinNow(): void {
    if (timer === undefined || document.hidden) return;
    clearTimeout(timer);
    failures = 0;
    void join();
  }

  globalThis.addEventListener("online", rejoinNow);
  document.addEventListener("visibilitychange", rejoinNow);
  void join();
  return () => {
    ended = true;
    clearTimeout(timer);
    globalThis.removeEventListener("online", rejoinNow);
    document.removeEventListener("visibilitychange", rejoinNow);
    leave();
  };
}
