/** How severe an alert is, in words. */
import type { Enums } from "../data/generated/database.types.ts";
import type { IconName } from "./Icon.tsx";
import type { Tone } from "./StatusText.tsx";

export const SEVERITIES: Record<
  Enums<"alert_severity">,
  { word: string; tone: Tone; icon: IconName; urgency: number }
> = {
  critical: { word: "Critical", tone: "bad", icon: "stop", urgency: 3 },
  warning: { word: "Warning", tone: "warn", icon: "triangle", urgency: 2 },
  info: { word: "Info", tone: "quiet", icon: "circle", urgency: 1 },
};
