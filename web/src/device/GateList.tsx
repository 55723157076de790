import { Stack, Text } from "@mantine/core";
import { StatusText } from "../components/StatusText.tsx";
import type { DeviceRow } from "../data/rows.ts";
import { soft } from "../styles/classNames.ts";
import { GateButton } from "./GateButton.tsx";
import classes from "./GateList.module.css";
import { actionSentence, type Explanation, VERDICTS } from "./gates.ts";

/** Every gate in the order of evaluation: its verdict, the reason, what would change it; `device` for who may do that. */
export function GateList({ explained, device }: { explained: Explanation; device: DeviceRow | null }) {
  return (
    <Stack gap="xs">
      <Text>{actionSentence(explained)}</Text>
      {explained.prefetch && <Text>It may download {explained.prefetch} in advance.</Text>}
      <ol className={classes.gates}>
        {explained.gates.map((gate, index) => {
          const look = VERDICTS[gate.verdict];
          return (
            <li key={index} data-gate={gate.gate} data-verdict={gate.verdict}>
              <StatusText tone={look.tone} icon={look.icon}>{look.word}</StatusText>
              <span className={classes.gate}>{gate.gate.replaceAll("_", " ")}</span>
              <span className={classes.detail}>
                {gate.detail}
                {gate.hint && <span className={`${soft} ${classes.hint}`}>{gate.hint}</span>}
                {device && <GateButton gate={gate} device={device} />}
              </span>
            </li>
          );
        })}
      </ol>
    </Stack>
  );
}
