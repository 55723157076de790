/** What a device's last report says beyond its state: resources, containers, recent log lines, its clock. */
import type { Tone } from "../components/StatusText.tsx";
import { fields, list, number, text } from "../data/json.ts";
import { bytes } from "../format/size.ts";
import { span } from "../format/time.ts";

export interface Meter {
  name: string;
  /** What is used, 0 to 1; null if there is no total to compare with. */
  share: number | null;
  shown: string;
  tone: Tone;
}

/** From this share on a meter warns, and from the second one it alarms. */
const WARN = 0.8;
const ALARM = 0.95;
const HOT_C = 70;
const TOO_HOT_C = 80;

/** The meters that the device reported; what is missing is left out. */
export function meters(resources: unknown): Meter[] {
  const seen = fields(resources);
  const made: Meter[] = [];
  const cpu = number(seen.cpu_percent);
  if (cpu !== null) made.push(meter("CPU", cpu / 100, `${Math.round(cpu)}%`));
  const used = number(seen.memory_used_bytes);
  const memory = number(seen.memory_total_bytes);
  if (used !== null && memory) {
    made.push(meter("Memory", used / memory, `${bytes(used)} of ${bytes(memory)}`));
  }
  const free = number(seen.disk_free_bytes);
  const disk = number(seen.disk_total_bytes);
  if (free !== null && disk) {
    made.push(meter("Disk", 1 - free / disk, `${bytes(free)} free of ${bytes(disk)}`));
  }
  const heat = number(seen.temperature_c);
  if (heat !== null) {
    const tone = heat >= TOO_HOT_C ? "bad" : heat >= HOT_C ? "warn" : "good";
    made.push({ name: "Temperature", share: null, shown: `${Math.round(heat)} °C`, tone });
  }
  const load = number(seen.load_1m);
  if (load !== null) made.push({ name: "Load (1 min)", share: null, shown: load.toFixed(2), tone: "quiet" });
  const uptime = number(seen.uptime_s);
  if (uptime !== null) made.push({ name: "Uptime", share: null, shown: span(uptime * 1000), tone: "quiet" });
  return made;
}

function meter(name: string, share: number, shown: string): Meter {
  const part = Math.min(1, Math.max(0, share));
  return { name, share: part, shown, tone: part >= ALARM ? "bad" : part >= WARN ? "warn" : "good" };
}

export interface ContainerView {
  service: string;
  image: string;
  /** "running, healthy", "exited (137)". */
  shown: string;
  tone: Tone;
  icon: "check" | "triangle" | "circle" | "hourglass";
  restarts: number;
  startedAt: string | null;
}

/** The containers that the device reported, by service. */
export function containers(reported: unknown): ContainerView[] {
  return list(reported).map((item) => {
    const state = text(item.state) ?? "unknown";
    const health = text(item.health);
    const exit = number(item.exit_code);
    const running = state === "running";
    const well = running && (health === null || health === "healthy" || health === "none");
    const starting = running && health === "starting";
    const finished = state === "exited" && exit === 0;
    return {
      service: text(item.service) ?? "?",
      image: text(item.image) ?? "",
      shown: running
        ? [state, health === "none" ? null : health].filter(Boolean).join(", ")
        : exit === null
        ? state
        : `${state} (${exit})`,
      tone: (well ? "good" : starting ? "busy" : finished ? "quiet" : "bad") as Tone,
      icon:
        (well ? "check" : starting ? "hourglass" : finished ? "circle" : "triangle") as ContainerView["icon"],
      restarts: number(item.restarts) ?? 0,
      startedAt: text(item.started_at),
    };
  }).sort((a, b) => a.service.localeCompare(b.service, "en"));
}

export interface LogLine {
  at: string | null;
  level: string;
  message: string;
  bad: boolean;
}

/** The last warnings and errors, the newest first. */
export function logLines(tail: unknown): LogLine[] {
  return list(tail).map((line) => {
    const level = (text(line.level) ?? "info").toLowerCase();
    return {
      at: text(line.at),
      level,
      message: text(line.message) ?? "",
      bad: level === "error" || level === "critical",
    };
  }).reverse();
}

/** Smaller differences are the time a report takes through the network. */
const CLOCK_TOLERANCE_MS = 5000;

/** How far the device's clock was off when it reported, or null if that does not matter. */
export function clockDrift(deviceTime: string | null, reportedAt: string): string | null {
  if (!deviceTime) return null;
  const off = Date.parse(deviceTime) - Date.parse(reportedAt);
  if (!(Math.abs(off) > CLOCK_TOLERANCE_MS)) return null;
  return `${span(Math.abs(off))} ${off > 0 ? "ahead" : "behind"}`;
}

/** What device.json on the device overrides: "poll interval 1 h", "site: rome". */
export function ownSettings(settings: unknown): string[] {
  const { poll_interval_s: every, labels, pinned } = fields(settings);
  const inForce = fields(labels);
  const names = Array.isArray(pinned) ? pinned.filter((name) => typeof name === "string") : [];
  return names.map((name) => {
    const seconds = number(every);
    if (name === "poll_interval_s" && seconds !== null) return `poll interval ${span(seconds * 1000)}`;
    const label = name.startsWith("labels.") ? name.slice("labels.".length) : null;
    return label !== null && label in inForce ? `${label}: ${String(inForce[label])}` : name;
  });
}
