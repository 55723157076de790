import { Stack, Text } from "@mantine/core";
import { Toned } from "../shown/Toned.tsx";
import classes from "./Gates.module.css";
import { actionSentence, type Explanation, VERDICTS } from "./gates.ts";

/** Every gate in the order in which it is asked, with its verdict and its sentence. */
export function Gates({ explained }: { explained: Explanation }) {
  return (
    <Stack gap="xs">
      <Text>{actionSentence(explained)}</Text>
      <ol className={classes.gates}>
        {explained.gates.map((gate) => {
          const look = VERDICTS[gate.verdict];
          return (
            <li key={gate.gate} data-gate={gate.gate} data-verdict={gate.verdict}>
              <Toned tone={look.tone} icon={look.icon}>{look.word}</Toned>
              <span className={classes.gate}>{gate.gate.replaceAll("_", " ")}</span>
              <span className={classes.detail}>
                {gate.detail}
                {gate.hint && <span className="soft">{gate.hint}</span>}
              </span>
            </li>
          );
        })}
      </ol>
    </Stack>
  );
}
