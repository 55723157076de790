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

/** One button that stops every update of the fleet, after it has said on how many devices. */
export function EmergencyStop({ facts }: { facts: StopFacts }) {
  const client = useClient();
  const cache = useQueryClient();
  const [asking, setAsking] = useState(false);
  return (
    <>
      <Button
        color="var(--tone-bad)"
        variant="outline"
        leftSection={<Icon name="stop" />}
        onClick={() => setAsking(true)}
      >
        Emergency stop
      </Button>
      {asking && (
        <ConfirmWithReason
          title="Stop all updates?"
          action={stopLabel(facts)}
          dangerous
          reasonLabel="What you have seen"
          run={async (reason) => {
            await haltFleet(client, reason);
            await cache.invalidateQueries({ queryKey: KEYS.halts });
            await cache.invalidateQueries({ queryKey: KEYS.allOfDevices });
          }}
          close={() => setAsking(false)}
        >
          <Text size="sm">
            No device starts an update until the halt is lifted. This concerns{" "}
            <b>{counted(facts.active, "active device")}</b>
            {facts.bySegment && ` (${facts.bySegment})`}.
          </Text>
          <Text size="sm">
            What runs keeps running. {facts.updating > 0 &&
              `${
                counted(facts.updating, "device")
              } in the middle of an update will finish it, or roll back, by themselves.`}
          </Text>
        </ConfirmWithReason>
      )}
    </>
  );
}
