/** What a person can do about a gate that keeps a device from a release, as a button next to its hint. */
import { Button, Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { serverNow } from "../data/serverClock.ts";
import type { DeviceRow } from "../data/rows.ts";
import { useOpenHalts } from "../fleet/useFleet.ts";
import { isHaltedBy } from "../halts/halts.ts";
import { LiftHalt } from "../halts/LiftHalt.tsx";
import { forgive, ignoreWindow } from "./actions.ts";
import { ConfirmAction } from "./DeviceActions.tsx";
import { type Gate, gateAction } from "./gates.ts";

const WINDOW_HOURS = 2;

export function GateButton({ gate, device }: { gate: Gate; device: DeviceRow }) {
  const [open, setOpen] = useState(false);
  const halt = useOpenHalts().data?.find((one) => !one.is_past && isHaltedBy(device, one));
  const action = gateAction(gate, halt !== undefined);
  const close = () => setOpen(false);
  if (!action) return null;
  return (
    <>
      <Button size="compact-xs" variant="default" onClick={() => setOpen(true)}>{action.label}</Button>
      {open && action.does === "lift" && halt && <LiftHalt halt={halt} close={close} />}
      {open && (action.does === "end hold" || action.does === "unpin" || action.does === "activate") && (
        <ConfirmAction action={action.does} device={device} fingerprint={null} close={close} />
      )}
      {open && action.does === "ignore window" && <IgnoreWindow device={device} close={close} />}
      {open && action.does === "try again" && <TryAgain device={device} close={close} />}
    </>
  );
}

interface Asked {
  device: DeviceRow;
  close: () => void;
}

function IgnoreWindow({ device, close }: Asked) {
  const client = useClient();
  const cache = useQueryClient();
  return (
    <ConfirmWithReason
      title={`Ignore the window of ${device.name}?`}
      action={`Ignore it for ${WINDOW_HOURS} h`}
      run={async () => {
        await ignoreWindow(client, device.id, new Date(serverNow() + WINDOW_HOURS * 3_600_000).toISOString());
        await cache.invalidateQueries();
      }}
      close={close}
    >
      <Text size="sm">It may update right away. After {WINDOW_HOURS} hours, its window applies again.</Text>
    </ConfirmWithReason>
  );
}

function TryAgain({ device, close }: Asked) {
  const client = useClient();
  const cache = useQueryClient();
  return (
    <ConfirmWithReason
      title={`Let ${device.name} try again?`}
      action="Try again"
      run={async () => {
        await forgive(client, device.id);
        await cache.invalidateQueries();
      }}
      close={close}
    >
      <Text size="sm">
        It tried and went back. With this, every release that it knows to be bad may be offered to it once
        more.
      </Text>
    </ConfirmWithReason>
  );
}
