/** A word with its icon in a tone. Color only supports: word and shape carry the meaning. */
import type { ReactNode } from "react";
import { Icon, type IconName } from "./Icon.tsx";

export type Tone = "good" | "busy" | "warn" | "bad" | "quiet";

export interface StatusTextProps {
  tone: Tone;
  icon: IconName;
  children: ReactNode;
  title?: string;
  size?: number;
  /** For a sentence: it may take several lines. */
  wrap?: boolean;
}

export function StatusText({ tone, icon, children, title, size = 18, wrap }: StatusTextProps) {
  return (
    <span
      title={title}
      style={{
        display: "inline-flex",
        verticalAlign: "middle",
        alignItems: "center",
        gap: 6,
        whiteSpace: wrap ? "normal" : "nowrap",
        overflowWrap: "anywhere",
      }}
    >
      <Icon name={icon} size={size} style={{ color: `var(--tone-${tone})` }} />
      <span>{children}</span>
    </span>
  );
}
