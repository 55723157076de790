import { Stack, Text } from "@mantine/core";
import { Toned } from "../components/StatusText.tsx";
import classes from "./GateList.module.css";
import { actionSentence, type Explanation, VERDICTS } from "./gates.ts";

/** Every gate in the order in which it is asked, with its verdict, its sentence and what would have to change. */
export function Gates({ explained }: { explained: Explanation }) {
  return (
    <Stack gap="xs">
      <Text>{actionSentence(explained)}</Text>
      {explained.prefetch && <Text>Meanwhile it may fetch {explained.prefetch} and prefetch it.</Text>}
      <ol className={classes.gates}>
        {explained.gates.map((gate, place) => {
          const look = VERDICTS[gate.verdict];
          return (
            <li key={place} data-gate={gate.gate} data-verdict={gate.verdict}>
              <Toned tone={look.tone} icon={look.icon}>{look.word}</Toned>
              <span className={classes.gate}>{gate.gate.replaceAll("_", " ")}</span>
              <span className={classes.detail}>
                {gate.detail}
                {gate.hint && <span className={`soft ${classes.hint}`}>{gate.hint}</span>}
              </span>
            </li>
          );
        })}
      </ol>
    </Stack>
  );
}
