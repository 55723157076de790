/** The settings of the fleet: what each means, and its value as a person types it. */
import list from "../data/generated/fleetSettings.json" with { type: "json" };
import { EDITABLE } from "../forms/editable.ts";

export interface Setting {
  name: SettingName;
  /** integer or text. */
  type: string;
  /** Null: empty unless somebody sets it. */
  default: string | null;
  limits: string;
  meaning: string;
}

export type SettingName = (typeof EDITABLE)["fleet_settings"]["columns"][number];
/** The columns of the row; null is empty. */
export type SettingValues = Record<SettingName, number | string | null>;

export const SETTINGS = list as readonly Setting[];

/** Whether it still has the value that a new fleet has. */
export function isDefault({ default: initial }: Setting, value: number | string | null): boolean {
  return String(value ?? "") === (initial ?? "");
}

/** "Default 900; 30 to 604800 seconds." */
export function bounds({ default: initial, limits }: Setting): string {
  const standard = `Default: ${initial ?? "empty"}`;
  return limits === "" ? `${standard}.` : `${standard}. Allowed: ${limits}.`;
}

/** What was typed, as the column takes it; null is empty. A number that is none stays text, which the database refuses in words. */
export function typed({ type }: Setting, text: string): number | string | null {
  const value = text.trim();
  if (value === "") return null;
  return type === "integer" && /^-?\d+$/.test(value) ? Number(value) : value;
}
