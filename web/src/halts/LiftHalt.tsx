import { Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { KEYS } from "../data/queries.ts";
import type { HaltRow } from "../data/rows.ts";
import { counted } from "../format/size.ts";
import { liftHalt } from "./actions.ts";

interface Props {
  halt: HaltRow;
  title: string;
  stopped: number | null;
  close: () => void;
}

export function LiftHalt({ halt, title, stopped, close }: Props) {
  const client = useClient();
  const cache = useQueryClient();
  return (
    <ConfirmWithReason
      title="Lift this halt?"
      action={stopped === null ? "Lift the halt" : `Resume updates on ${counted(stopped, "device")}`}
      reasonLabel="Why it is safe to continue"
      run={async (reason) => {
        await liftHalt(client, halt.id, reason);
        await cache.invalidateQueries({ queryKey: KEYS.halts });
        await cache.invalidateQueries({ queryKey: KEYS.allOfDevices });
      }}
      close={close}
    >
      <Text size="sm">{title}: {halt.reason}</Text>
      <Text size="sm">
        Waiting devices may start to update right away. The halt stays on record, with who lifted it and why.
      </Text>
    </ConfirmWithReason>
  );
}
