import { Button, Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { Icon } from "../components/Icon.tsx";
import { KEYS } from "../data/queries.ts";
import { counted } from "../format/size.ts";
import { haltFleet } from "./actions.ts";
import { type StopFacts, stopLabel } from "./halts.ts";

/** One button that stops all updates of the fleet, after saying for how many devices. */
export function EmergencyStop({ facts }: { facts: StopFacts }) {
  const client = useClient();
  const cache = useQueryClient();
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
      {confirming && (
        <ConfirmWithReason
          title="Stop all updates?"
          action={stopLabel(facts)}
          dangerous
          reasonLabel="Reason"
          run={async (reason) => {
            await haltFleet(client, reason);
            await cache.invalidateQueries({ queryKey: KEYS.halts });
            await cache.invalidateQueries({ queryKey: KEYS.allOfDevices });
          }}
          close={() => setConfirming(false)}
        >
          <Text size="sm">
            No device will start an update until the halt is lifted. This affects{" "}
            <b>{counted(facts.active, "active device")}</b>
            {facts.bySegment && ` (${facts.bySegment})`}.
          </Text>
          <Text size="sm">
            Running software is not touched. {facts.updating > 0 &&
              `${counted(facts.updating, "device")} now updating will still finish or roll back.`}
          </Text>
        </ConfirmWithReason>
      )}
    </>
  );
}
