/** The page's one timer, which every "12 s ago" depends on. It stops while the page is hidden. */
import { useSyncExternalStore } from "react";
import { serverNow } from "../data/serverClock.ts";

const TICK_MS = 1000;

const listeners = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;
let now = Date.now();

function tick(): void {
  now = serverNow();
  for (const listener of listeners) listener();
}

function resume(): void {
  clearInterval(timer);
  timer = undefined;
  if (listeners.size > 0 && !document.hidden) {
    timer = setInterval(tick, TICK_MS);
    tick();
  }
}

function subscribe(listener: () => void): () => void {
  if (listeners.size === 0) document.addEventListener("visibilitychange", resume);
  listeners.add(listener);
  if (timer === undefined) resume();
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      document.removeEventListener("visibilitychange", resume);
      resume();
    }
  };
}

/** Server time in steps of `stepMs`; the component renders again only when it changes. */
export function useNow(stepMs = TICK_MS): number {
  return useSyncExternalStore(subscribe, () => Math.floor(now / stepMs) * stepMs);
}
