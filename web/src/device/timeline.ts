/** Everything that the tables know about one device, entry by entry, as sentences. */
import type { IconName } from "../components/Icon.tsx";
import type { Tone } from "../components/StatusText.tsx";
import { fields, list, number, text } from "../data/json.ts";
import { took } from "../format/time.ts";

export interface TimelineEntry {
  key: string;
  at: string;
  /** "attempt", "command", "edit", "retry", "alert" or "halt". */
  what: string;
  tone: Tone;
  icon: IconName;
  sentence: string;
  /** Who did it, if it was a person. */
  by: string | null;
  /** More of it: the error, the answer, the reason. */
  detail: string | null;
}

const OUTCOMES: Record<string, { tone: Tone; icon: IconName; words: string }> = {
  succeeded: { tone: "good", icon: "check", words: "Updated" },
  failed: { tone: "bad", icon: "triangle", words: "Failed to update" },
  rolled_back: { tone: "warn", icon: "undo", words: "Rolled back after trying to update" },
  skipped: { tone: "quiet", icon: "circle", words: "Skipped the update" },
};
const COMMAND_ENDS: Record<string, string> = {
  queued: "waits for its next check-in",
  succeeded: "succeeded",
  failed: "failed",
  expired: "was not answered in time",
};

/** Read the answer of `device_timeline`. */
export function parseTimeline(answer: unknown): TimelineEntry[] {
  return list(answer).map((entry) => {
    const what = text(entry.what) ?? "?";
    return {
      key: `${what} ${text(entry.id)}`,
      at: text(entry.at) ?? "",
      what,
      by: text(fields(entry.facts).by),
      ...told(what, fields(entry.facts)),
    };
  });
}

function told(
  what: string,
  facts: Record<string, unknown>,
): Pick<TimelineEntry, "tone" | "icon" | "sentence" | "detail"> {
  switch (what) {
    case "attempt": {
      const look = OUTCOMES[text(facts.outcome) ?? ""] ??
        { tone: "quiet" as const, icon: "circle" as const, words: "Tried to update" };
      const seconds = number(facts.seconds);
      const from = text(facts.from);
      return {
        tone: look.tone,
        icon: look.icon,
        sentence: `${look.words} ${from ? `from ${from} ` : ""}to ${text(facts.to) ?? "?"}${
          seconds !== null && seconds >= 0 ? `, took ${took(seconds * 1000)}` : ""
        }.`,
        detail: text(facts.error),
      };
    }
    case "command": {
      const state = text(facts.state) ?? "";
      return {
        tone: state === "failed"
          ? "bad"
          : state === "expired"
          ? "warn"
          : state === "queued"
          ? "busy"
          : "good",
        icon: state === "failed"
          ? "triangle"
          : state === "queued"
          ? "hourglass"
          : state === "expired"
          ? "clock"
          : "check",
        sentence: `Command ${plain(text(facts.kind))} ${COMMAND_ENDS[state] ?? state}.`,
        detail: answerWords(text(facts.result)),
      };
    }
    case "edit":
      return { tone: "quiet", icon: "person", sentence: editWords(facts), detail: null };
    case "retry":
      return {
        tone: "quiet",
        icon: "person",
        sentence: `May try ${text(facts.version) ?? "a release"} again.`,
        detail: null,
      };
    case "alert": {
      const severity = text(facts.severity);
      return {
        tone: severity === "critical" ? "bad" : severity === "warning" ? "warn" : "quiet",
        icon: severity === "critical" ? "stop" : severity === "warning" ? "triangle" : "circle",
        sentence: `Alert: ${text(facts.summary) ?? plain(text(facts.kind))}`,
        detail: text(facts.resolved_at) ? "Resolved." : null,
      };
    }
    case "halt": {
      const scope = text(facts.scope) ?? "fleet";
      const lifted = text(facts.lift_reason);
      return {
        tone: text(facts.lifted_at) ? "quiet" : "bad",
        icon: "stop",
        sentence: `${
          scope === "fleet" ? "The whole fleet" : `Its ${scope} ${text(facts.target) ?? ""}`
        } was halted: ${text(facts.reason) ?? ""}`,
        detail: lifted ? `Lifted: ${lifted}` : null,
      };
    }
    default:
      return { tone: "quiet", icon: "circle", sentence: plain(what), detail: null };
  }
}

/** "Changed segment from canary to early": only what changed. */
function editWords(facts: Record<string, unknown>): string {
  if (text(facts.action) === "insert") return "The device was added.";
  const before = fields(facts.before);
  const after = fields(facts.after);
  const changes = Object.keys(after).map((column) =>
    `${plain(column)} from ${shown(before[column])} to ${shown(after[column])}`
  );
  return changes.length > 0 ? `Changed ${changes.join(", ")}.` : "Changed.";
}

function shown(value: unknown): string {
  if (value === null || value === undefined || value === "") return "nothing";
  if (typeof value === "object") {
    return Object.entries(value).map(([name, one]) => `${name}=${String(one)}`).join(" ") || "nothing";
  }
  return String(value);
}

function answerWords(result: string | null): string | null {
  if (result === null || result === "null") return null;
  try {
    const answer: unknown = JSON.parse(result);
    return text(fields(answer).detail) ?? text(fields(answer).error) ?? text(answer) ?? result;
  } catch {
    return result;
  }
}

function plain(name: string | null): string {
  return (name ?? "?").replaceAll("_", " ");
}
