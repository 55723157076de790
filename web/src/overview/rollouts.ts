/** The rollouts that run, as the overview tells them. */
import { fields, list, number, text } from "../data/json.ts";
import { counted } from "../format/size.ts";
import { span } from "../format/time.ts";

export interface OpenRollout {
  id: string;
  name: string;
  version: string;
  state: "running" | "paused";
  /** "kiosk, main": for whom. */
  audience: string;
  halted: boolean;
  devices: number;
  stages: OpenStage[];
  /** What comes next. */
  next: NextEvent;
}

export interface OpenStage {
  position: number;
  open: boolean;
  /** The whole of the stage: the parts add up to it, and are never negative. */
  devices: number;
  parts: { word: string; tone: "good" | "busy" | "bad" | "warn" | "quiet"; devices: number }[];
}

export interface NextEvent {
  stage: number | null;
  /** When it opens, if that is known. */
  at: string | null;
  because: string | null;
  approval: boolean;
}

/** Read the answer of `open_rollouts`. */
export function parseOpenRollouts(answer: unknown): OpenRollout[] {
  return list(answer).map((rollout) => {
    const next = fields(rollout.next);
    return {
      id: text(rollout.rollout_id) ?? "",
      name: text(rollout.name) ?? "?",
      version: text(rollout.version) ?? "?",
      state: rollout.state === "paused" ? "paused" : "running",
      audience: [text(rollout.role) ?? "all roles", text(rollout.branch)].filter(Boolean).join(", "),
      halted: list(rollout.halts).length > 0,
      devices: number(rollout.devices) ?? 0,
      stages: list(rollout.stages).map(parseStage),
      next: {
        stage: number(next.stage),
        at: text(next.at),
        because: text(next.because),
        approval: next.approval === true,
      },
    };
  });
}

function parseStage(stage: Record<string, unknown>): OpenStage {
  const count = (name: string) => number(stage[name]) ?? 0;
  const devices = count("devices");
  const parts: OpenStage["parts"] = [
    { word: "run it", tone: "good", devices: count("on_release") },
    { word: "updating", tone: "busy", devices: count("in_flight") },
    { word: "known bad", tone: "bad", devices: count("known_bad") },
    { word: "waiting", tone: "quiet", devices: count("waiting") },
    { word: "offline", tone: "warn", devices: count("offline") },
  ];
  // Whoever tried it and does not run it: failed, and not to be offered it again.
  const rest = devices - parts.reduce((sum, part) => sum + part.devices, 0);
  if (rest > 0) parts.splice(2, 0, { word: "tried without success", tone: "bad", devices: rest });
  return {
    position: count("position"),
    open: text(stage.opened_at) !== null,
    devices,
    parts: parts.filter((part) => part.devices > 0),
  };
}

/** "14 run it, 2 updating, 1 offline": a stage in words, for everyone who does not see the bar. */
export function stageWords(stage: OpenStage): string {
  if (stage.devices === 0) return "no devices";
  return stage.parts.map((part) => `${part.devices.toLocaleString("en")} ${part.word}`).join(", ");
}

/** "Stage 2 opens in 41 min". */
export function nextWords({ stage, at, because, approval }: NextEvent, now: number): string {
  const what = stage === null ? "It completes" : `Stage ${stage} opens`;
  if (at) {
    const wait = Date.parse(at) - now;
    const when = wait > 0 ? `in ${span(wait)}` : "within a minute";
    return `${what} ${when}${approval ? ", if it is approved by then" : ""}.`;
  }
  if (approval && because?.includes("approval")) return `Stage ${stage} waits for approval.`;
  if (because) return `${what} later: ${because}`;
  return `${what} within a minute.`;
}

/** "35 of 120 devices run 2.1.0": over the whole rollout. */
export function progressWords(rollout: OpenRollout): string {
  const there = rollout.stages.reduce(
    (sum, stage) => sum + (stage.parts.find(({ tone }) => tone === "good")?.devices ?? 0),
    0,
  );
  return `${there.toLocaleString("en")} of ${counted(rollout.devices, "device")} run ${rollout.version}`;
}
