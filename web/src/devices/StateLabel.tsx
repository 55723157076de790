import { LOOKS, type ShownState } from "./shownState.ts";
import { Toned } from "../components/StatusText.tsx";

/** A device's state as icon and word. */
export function StateWord({ state, size }: { state: ShownState; size?: number }) {
  const look = LOOKS[state];
  return (
    <Toned tone={look.tone} icon={look.icon} title={look.meaning} {...(size ? { size } : {})}>
      {look.word}
    </Toned>
  );
}
