/** What a halt stops, in words and in numbers. */
import { fields, list, number, text } from "../data/json.ts";
import type { DeviceRow, HaltRow } from "../data/rows.ts";
import { counted } from "../format/size.ts";

/** "The whole fleet is halted", "Release v2 is halted". */
export function haltTitle({ subject }: Pick<HaltRow, "subject">): string {
  return `${subject} is halted`;
}

/** Why a rule of policy opened a halt; one that a person opened has a name instead. */
const CAUSES: Record<string, string> = {
  failure_ratio: "opened automatically because too many updates failed",
  consecutive_failures: "opened automatically because several updates failed in a row",
  max_failures: "opened automatically because its limit of failures was reached",
};

/** "opened by ann@example.com", or the rule that opened it, in words. */
export function haltCause(
  { cause, opened_by }: Pick<HaltRow, "cause"> & { opened_by: string | null },
): string {
  if (cause === "operator") return opened_by ? `opened by ${opened_by}` : "opened by an operator";
  return CAUSES[cause] ?? `opened automatically (${cause.replaceAll("_", " ")})`;
}

/** "3 devices get no updates", "2 devices go back", or why it is over. */
export function haltEffect(halt: Pick<HaltRow, "scope" | "devices" | "going_back" | "is_past">): string {
  if (halt.is_past) {
    return halt.scope === "rollout"
      ? "That rollout is over, so this halt stops nothing any more."
      : "That release is offered to nobody, so this halt stops nothing any more.";
  }
  const kept = `${counted(halt.devices, "device")} ${halt.devices === 1 ? "gets" : "get"} no updates from it`;
  const back = `${counted(halt.going_back, "device")} still ${
    halt.going_back === 1 ? "runs" : "run"
  } it and ${halt.going_back === 1 ? "goes" : "go"} back`;
  if (
    halt.scope === "fleet" || halt.scope === "segment" || halt.scope === "role" || halt.scope === "branch"
  ) {
    return `${counted(halt.devices, "device")} ${halt.devices === 1 ? "gets" : "get"} no updates`;
  }
  return halt.going_back > 0 ? `${kept}; ${back}` : kept;
}

/** Whether an open halt keeps this device from updates; the database judges halts of releases and rollouts. */
export function isHaltedBy(
  device: Pick<DeviceRow, "segment" | "role" | "branch">,
  halt: { scope: string; target: string | null },
): boolean {
  switch (halt.scope) {
    case "fleet":
      return true;
    case "segment":
    case "role":
    case "branch":
      return device[halt.scope] === halt.target;
    default:
      return false;
  }
}

/** How far a halt would reach. */
export interface Reach {
  /** Active devices: the ones that would get no more updates. */
  devices: number;
  /** "2 in canary, 4 in stable". */
  bySegment: string;
  /** Devices in the middle of an update. */
  updating: number;
}

/** Read the answer of `halt_reach`. */
export function parseReach(answer: unknown): Reach {
  const { devices, updating, by_segment } = fields(answer);
  return {
    devices: number(devices) ?? 0,
    updating: number(updating) ?? 0,
    bySegment: list(by_segment)
      .map((part) => `${(number(part.devices) ?? 0).toLocaleString("en")} in ${text(part.segment) ?? "?"}`)
      .join(", "),
  };
}

/** "Stop updates on 6 devices": the button says how many it affects. */
export function stopLabel({ devices }: Pick<Reach, "devices">): string {
  return `Stop updates on ${counted(devices, "device")}`;
}
