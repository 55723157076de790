import { Alert, Button, Group, Text } from "@mantine/core";
import { useState } from "react";
import { mayOperate } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { Icon } from "../components/Icon.tsx";
import { RelativeTime } from "../components/RelativeTime.tsx";
import type { HaltRow } from "../data/rows.ts";
import { useFleet, useOpenHalts } from "../fleet/useFleet.ts";
import { counted } from "../format/size.ts";
import { haltedDevices, haltTitle } from "./halts.ts";
import { LiftHalt } from "./LiftHalt.tsx";

/** Every open halt, on every page: what is stopped, why, since when, and a button to lift it. */
export function HaltBanner() {
  const operator = useOperator();
  const { data: halts } = useOpenHalts();
  const { fleet } = useFleet();
  const [lifting, setLifting] = useState<HaltRow | null>(null);
  return (
    <div aria-live="polite" style={{ display: halts?.length ? "grid" : "contents", gap: 8 }}>
      {halts?.map((halt) => {
        const stopped = haltedDevices(halt, fleet?.devices ?? []);
        return (
          <Alert
            key={halt.id}
            color="red"
            variant="light"
            icon={<Icon name="stop" />}
            title={haltTitle(halt, fleet?.releases ?? [])}
            data-testid="halt"
          >
            <Group justify="space-between" align="flex-end">
              <Text size="sm" style={{ flex: "1 1 20rem" }}>
                {halt.reason} (<RelativeTime at={halt.opened_at} />
                {halt.cause === "operator" ? "" : `, by ${halt.cause}`})
                {stopped !== null && fleet &&
                  ` · ${counted(stopped, "device")} affected`}
              </Text>
              {mayOperate(operator.rank) && (
                <Button
                  size="compact-sm"
                  variant="default"
                  onClick={() => setLifting(halt)}
                >
                  Lift
                </Button>
              )}
            </Group>
          </Alert>
        );
      })}
      {lifting && (
        <LiftHalt
          halt={lifting}
          title={haltTitle(lifting, fleet?.releases ?? [])}
          stopped={haltedDevices(lifting, fleet?.devices ?? [])}
          close={() => setLifting(null)}
        />
      )}
    </div>
  );
}
