import { StatusText } from "../components/StatusText.tsx";
import { LOOKS, type ShownState } from "./shownState.ts";

/** A device's state as icon and word. */
export function StateLabel({ state, size }: { state: ShownState; size?: number }) {
  const look = LOOKS[state];
  return (
    <StatusText tone={look.tone} icon={look.icon} title={look.meaning} {...(size ? { size } : {})}>
      {look.word}
    </StatusText>
  );
}
