/** Why the control plane decides as it does for a device: the gates, in the order of evaluation. */
import type { IconName } from "../components/Icon.tsx";
import type { Tone } from "../components/StatusText.tsx";
import { fields, list, text } from "../data/json.ts";

export type Verdict = "pass" | "wait" | "refuse";

export interface Gate {
  gate: string;
  verdict: Verdict | "unknown";
  detail: string;
  /** What would have to change for another verdict, if the control plane says so. */
  hint: string | null;
}

export interface Explanation {
  action: string | null;
  /** The whole answer as one sentence, if the control plane gives one. */
  summary: string | null;
  release: string | null;
  /** The release that may be fetched before the maintenance window opens. */
  prefetch: string | null;
  gates: Gate[];
}

export const VERDICTS: Record<Gate["verdict"], { word: string; tone: Tone; icon: IconName }> = {
  pass: { word: "Pass", tone: "good", icon: "check" },
  wait: { word: "Wait", tone: "warn", icon: "hourglass" },
  refuse: { word: "Refuse", tone: "bad", icon: "stop" },
  unknown: { word: "Unknown", tone: "quiet", icon: "circle" },
};

/** Each action of `desired_state()` in words. */
const ACTIONS: Record<string, string> = {
  run: "Keeps its current release",
  update: "Will update",
  rollback: "Will roll back to the previous release",
  safe_mode: "Runs only the safe-mode services",
  hold: "On hold",
};

/** Read the answer of `explain_device`: an object with `gates`, or the gates themselves. */
export function parseExplanation(answer: unknown): Explanation {
  const whole = fields(answer);
  const gates = list(Array.isArray(answer) ? answer : whole.gates).map((gate) => ({
    gate: text(gate.gate) ?? "gate",
    verdict: toVerdict(gate.verdict),
    detail: text(gate.detail) ?? "",
    hint: text(gate.hint),
  }));
  return {
    action: text(whole.action),
    summary: text(whole.summary) ?? text(whole.detail) ?? text(whole.sentence),
    release: releaseName(whole.release),
    prefetch: releaseName(whole.prefetch),
    gates,
  };
}

function releaseName(release: unknown): string | null {
  const { version, commit_sha } = fields(release);
  return text(version) ?? text(commit_sha)?.slice(0, 12) ?? null;
}

function toVerdict(value: unknown): Gate["verdict"] {
  return value === "pass" || value === "wait" || value === "refuse" ? value : "unknown";
}

/** The answer as a sentence: the action, its release, and the first gate that blocks it. */
export function actionSentence(explained: Explanation): string {
  if (explained.summary) return explained.summary;
  const action = explained.action ? ACTIONS[explained.action] ?? explained.action : "Unknown";
  const release = explained.release && explained.action === "update" ? ` (${explained.release})` : "";
  const blocking = explained.gates.find((gate) => gate.verdict === "wait" || gate.verdict === "refuse");
  return `${action}${release}${blocking?.detail ? `: ${blocking.detail}` : ""}`;
}

export interface GateAction {
  does: "lift" | "end hold" | "unpin" | "activate" | "ignore window" | "try again";
  /** What its button says. */
  label: string;
}

/** What a person can do here and now about a gate that keeps the device from a release; null if nothing. */
export function gateAction({ gate, verdict, detail }: Gate, isHalted: boolean): GateAction | null {
  if (verdict !== "wait" && verdict !== "refuse") return null;
  switch (gate) {
    case "halt":
      return isHalted ? { does: "lift", label: "Lift halt" } : null;
    case "hold":
      return { does: "end hold", label: "End hold" };
    case "pin":
      return { does: "unpin", label: "Unpin" };
    case "device_state":
      return detail.includes("suspended") ? { does: "activate", label: "Reactivate" } : null;
    case "window":
      return { does: "ignore window", label: "Ignore window for 2 h" };
    case "known_bad":
      // A pattern concerns other devices, too: it is lifted where it stands.
      return detail.startsWith("It rolled back") ? { does: "try again", label: "Try again" } : null;
    default:
      return null;
  }
}
