import { Button, Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { Icon } from "../components/Icon.tsx";
import { counted } from "../format/size.ts";
import { haltFleet } from "./actions.ts";
import { stopLabel } from "./halts.ts";
import { useHaltReach } from "./useHaltReach.ts";

/** One button that stops all updates of the fleet, after saying for how many devices. */
export function EmergencyStop() {
  const [confirming, setConfirming] = useState(false);
  return (
    <>
      <Button
        color="var(--tone-bad)"
        variant="outline"
        leftSection={<Icon name="stop" />}
        onClick={() => setConfirming(true)}
      >
        Emergency stop
      </Button>
      {confirming && <ConfirmStop close={() => setConfirming(false)} />}
    </>
  );
}

function ConfirmStop({ close }: { close: () => void }) {
  const client = useClient();
  const cache = useQueryClient();
  const { data: reach } = useHaltReach("fleet", null);
  return (
    <ConfirmWithReason
      title="Stop all updates?"
      // It works before it is known how many: a stop waits for nothing.
      action={reach ? stopLabel(reach) : "Stop all updates"}
      dangerous
      reasonLabel="Reason"
      run={async (reason) => {
        await haltFleet(client, reason);
        await cache.invalidateQueries();
      }}
      close={close}
    >
      <Text size="sm">
        No device will start an update until the halt is lifted. {reach && (
          <>
            This affects <b>{counted(reach.devices, "active device")}</b>
            {reach.bySegment && ` (${reach.bySegment})`}.
          </>
        )}
      </Text>
      <Text size="sm">
        Running software is not touched. {reach && reach.updating > 0 &&
          `${counted(reach.updating, "device")} now updating will still finish or roll back.`}
      </Text>
    </ConfirmWithReason>
  );
}
