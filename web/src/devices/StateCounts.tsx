import { Group, UnstyledButton } from "@mantine/core";
import { StatusText } from "../components/StatusText.tsx";
import { numbers } from "../styles/classNames.ts";
import { LOOKS, type ShownState, STATES } from "./shownState.ts";
import classes from "./StateCounts.module.css";

interface Props {
  counts: ReadonlyMap<ShownState, number>;
  chosen: readonly ShownState[];
  toggle: (state: ShownState) => void;
}

/** How many devices are in each state; each count is a button that filters the list by it. */
export function StateCounts({ counts, chosen, toggle }: Props) {
  const shown = STATES.filter((state) => counts.has(state) || chosen.includes(state));
  return (
    <Group gap={8} role="group" aria-label="Devices by state">
      {shown.map((state) => {
        const look = LOOKS[state];
        return (
          <UnstyledButton
            key={state}
            className={classes.count}
            aria-pressed={chosen.includes(state)}
            title={look.meaning}
            onClick={() => toggle(state)}
            data-state={state}
          >
            <StatusText tone={look.tone} icon={look.icon} size={20}>
              <b className={numbers}>{(counts.get(state) ?? 0).toLocaleString("en")}</b> {look.word}
            </StatusText>
          </UnstyledButton>
        );
      })}
    </Group>
  );
}
