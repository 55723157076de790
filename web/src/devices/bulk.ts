/** A change of many devices: what it is called, what it asks for, and what became of it. */
import { fields, list, number, text } from "../data/json.ts";
import { counted } from "../format/size.ts";

/** What `change_devices` takes. */
export type Change = Record<string, unknown>;

export interface BulkAction {
  id: string;
  /** "Hold": what the menu says. */
  label: string;
  dangerous?: boolean;
  needsReason?: boolean;
}

export const BULK_ACTIONS: readonly BulkAction[] = [
  { id: "segment", label: "Move to a segment" },
  { id: "labels", label: "Set or remove a label" },
  { id: "window", label: "Set the maintenance window" },
  { id: "ignore window", label: "Ignore the window for a time" },
  { id: "hold", label: "Hold", needsReason: true },
  { id: "end hold", label: "End the hold" },
  { id: "pin", label: "Pin to a release" },
  { id: "unpin", label: "Unpin" },
  { id: "command", label: "Send a command" },
  { id: "suspend", label: "Suspend", dangerous: true },
  { id: "activate", label: "Reactivate" },
];

/** "Hold 7 devices": the number on the button is the number that the database checks. */
export function bulkLabel(verb: string, count: number): string {
  return `${verb} ${counted(count, "device")}`;
}

export interface BulkResult {
  devices: number;
  changed: number;
  unchanged: number;
  refused: { name: string; message: string; hint: string | null }[];
}

/** Read the answer of `change_devices`. */
export function parseResult(answer: unknown): BulkResult {
  const whole = fields(answer);
  return {
    devices: number(whole.devices) ?? 0,
    changed: number(whole.changed) ?? 0,
    unchanged: number(whole.unchanged) ?? 0,
    refused: list(whole.answers).filter(({ outcome }) => outcome === "refused").map((one) => ({
      name: text(one.name) ?? "?",
      message: text(one.message) ?? "It was refused without a reason.",
      hint: text(one.hint),
    })),
  };
}

/** "6 devices changed, 1 was like that before, 2 refused": the parts add up to the whole. */
export function resultWords({ devices, changed, unchanged, refused }: BulkResult): string {
  const parts = [`${counted(changed, "device")} of ${devices.toLocaleString("en")} changed`];
  if (unchanged > 0) {
    parts.push(`${unchanged.toLocaleString("en")} ${unchanged === 1 ? "was" : "were"} like that before`);
  }
  if (refused.length > 0) parts.push(`${refused.length.toLocaleString("en")} refused`);
  return parts.join(", ");
}
