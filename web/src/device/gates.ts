/** Why the control plane gives a device what it gives it: the gates, in the order in which they are asked. */
import { fields, list, text } from "../data/json.ts";
import type { IconName } from "../components/Icon.tsx";
import type { Tone } from "../components/StatusText.tsx";

export type Verdict = "pass" | "wait" | "refuse";

export interface Gate {
  gate: string;
  verdict: Verdict | "unknown";
  detail: string;
  /** What would have to change for another verdict, where the control plane says so. */
  hint: string | null;
}

export interface Explanation {
  action: string | null;
  /** The whole answer as one sentence, where the control plane gives one. */
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

/** What each action of `desired_state()` means to a person. */
const ACTIONS: Record<string, string> = {
  run: "Keeps what it runs",
  update: "Moves to another release",
  rollback: "Goes back to the release before",
  safe_mode: "Runs only the safe-mode services",
  hold: "Does nothing until it is let go",
};

/** Read the answer of `explain_device`: an object with `gates`, or the gates themselves. */
export function parseExplanation(answer: unknown): Explanation {
  const whole = fields(answer);
  const gates = list(Array.isArray(answer) ? answer : whole.gates).map((gate) => ({
    gate: text(gate.gate) ?? "gate",
    verdict: verdict(gate.verdict),
    detail: text(gate.detail) ?? "",
    hint: text(gate.hint),
  }));
  return {
    action: text(whole.action),
    summary: text(whole.summary) ?? text(whole.detail) ?? text(whole.sentence),
    release: named(whole.release),
    prefetch: named(whole.prefetch),
    gates,
  };
}

function named(release: unknown): string | null {
  const { version, commit_sha } = fields(release);
  return text(version) ?? text(commit_sha)?.slice(0, 12) ?? null;
}

function verdict(value: unknown): Gate["verdict"] {
  return value === "pass" || value === "wait" || value === "refuse" ? value : "unknown";
}

/** The answer as a sentence: the action, its release, and the first gate that is in the way. */
export function actionSentence(explained: Explanation): string {
  if (explained.summary) return explained.summary;
  const action = explained.action ? ACTIONS[explained.action] ?? explained.action : "Not known";
  const release = explained.release && explained.action === "update" ? ` (${explained.release})` : "";
  const obstacle = explained.gates.find((gate) => gate.verdict === "wait" || gate.verdict === "refuse");
  return `${action}${release}${obstacle?.detail ? `: ${obstacle.detail}` : ""}`;
}
