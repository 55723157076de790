/** What a halt stops, in words and in numbers. */
import type { DeviceRow, HaltRow, ReleaseRow } from "../data/rows.ts";
import { counted } from "../format/size.ts";

type AssignedDevice = Pick<DeviceRow, "state" | "segment" | "role" | "branch">;

/** "The whole fleet is halted", "Segment canary is halted". */
export function haltTitle(halt: Pick<HaltRow, "scope" | "target">, releases: readonly ReleaseRow[]): string {
  if (halt.scope === "fleet") return "The whole fleet is halted";
  const release = releases.find(({ id }) => halt.scope === "release" && id === halt.target);
  const name = release?.version ?? halt.target ?? "?";
  return `${halt.scope.charAt(0).toUpperCase()}${halt.scope.slice(1)} ${name} is halted`;
}

/** The active devices that a halt keeps from updates; null if the rows of devices do not tell. */
export function haltedDevices(
  halt: Pick<HaltRow, "scope" | "target">,
  devices: readonly AssignedDevice[],
): number | null {
  const active = devices.filter(({ state }) => state === "active");
  switch (halt.scope) {
    case "fleet":
      return active.length;
    case "segment":
    case "role":
    case "branch": {
      const { scope, target } = halt;
      return active.filter((device) => device[scope] === target).length;
    }
    default:
      return null;
  }
}

export interface StopFacts {
  /** Active devices: the ones that would get no more updates. */
  active: number;
  /** "2 in canary, 4 in stable". */
  bySegment: string;
  /** Devices in the middle of an update. */
  updating: number;
}

/** What the emergency stop would affect, for its confirmation. */
export function stopFacts(devices: readonly AssignedDevice[], updating: number): StopFacts {
  const counts = new Map<string, number>();
  const active = devices.filter(({ state }) => state === "active");
  for (const { segment } of active) counts.set(segment, (counts.get(segment) ?? 0) + 1);
  const bySegment = [...counts].sort(([a], [b]) => a.localeCompare(b, "en"))
    .map(([segment, count]) => `${count.toLocaleString("en")} in ${segment}`).join(", ");
  return { active: active.length, bySegment, updating };
}

/** "Stop updates on 6 devices": the button says how many it affects. */
export function stopLabel({ active }: StopFacts): string {
  return `Stop updates on ${counted(active, "device")}`;
}
