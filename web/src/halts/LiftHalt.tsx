import { Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import type { HaltRow } from "../data/rows.ts";
import { counted } from "../format/size.ts";
import { liftHalt } from "./actions.ts";
import { haltTitle } from "./halts.ts";

export function LiftHalt({ halt, close }: { halt: HaltRow; close: () => void }) {
  const client = useClient();
  const cache = useQueryClient();
  return (
    <ConfirmWithReason
      title="Lift this halt?"
      action={halt.is_past ? "Lift the halt" : `Resume updates on ${counted(halt.devices, "device")}`}
      reasonLabel="Why it is safe to continue"
      run={async (reason) => {
        await liftHalt(client, halt.id, reason);
        await cache.invalidateQueries();
      }}
      close={close}
    >
      <Text size="sm">{haltTitle(halt)}: {halt.reason}</Text>
      <Text size="sm">
        {halt.is_past
          ? "It stops nothing any more, so no device is affected."
          : "Waiting devices may start to update right away."}{" "}
        The halt stays on record, with who lifted it and why.
      </Text>
    </ConfirmWithReason>
  );
}
