/** The one clock of the page: every "12 s ago" hangs on this single timer, which rests while nobody looks. */
import { useSyncExternalStore } from "react";

const TICK_MS = 1000;

const listeners = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;
let offset = 0;
let now = Date.now();

/** Server time minus this machine's, from the last answer's Date header: a wrong laptop clock hides no silence. */
export function learnServerTime(date: string | null, receivedAt = Date.now()): void {
  const server = date ? Date.parse(date) : Number.NaN;
  if (Number.isNaN(server)) return;
  const seen = server - receivedAt;
  // The header has whole seconds: smaller differences are its rounding and the way here.
  offset = Math.abs(seen) < 2000 ? 0 : seen;
}

/** Server time, milliseconds. */
export function serverNow(): number {
  return Date.now() + offset;
}

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

/** Server time that changes every `stepMs`; renders again only then. */
export function useNow(stepMs = TICK_MS): number {
  return useSyncExternalStore(subscribe, () => Math.floor(now / stepMs) * stepMs);
}
