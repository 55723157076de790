import { Button, Group, NativeSelect, Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { KEYS } from "../data/queries.ts";
import type { DeviceRow } from "../data/rows.ts";
import { useReleases } from "../fleet/useFleet.ts";
import { acceptDevice, endHold, holdDevice, pinDevice, setState, unpinDevice } from "./actions.ts";

type Action = "accept" | "hold" | "end hold" | "pin" | "unpin" | "suspend" | "activate";

/** What may be done to this device now; each action is confirmed first and says what will happen. */
export function DeviceActions(
  { device, held, fingerprint }: { device: DeviceRow; held: boolean; fingerprint: string | null },
) {
  const [action, setAction] = useState<Action | null>(null);
  const actions: { name: Action; label: string; shown: boolean; primary?: boolean }[] = [
    { name: "accept", label: "Accept", shown: device.state === "pending", primary: true },
    { name: "activate", label: "Reactivate", shown: device.state === "suspended", primary: true },
    { name: "pin", label: device.pinned_release ? "Change pin" : "Pin", shown: device.state === "active" },
    { name: "unpin", label: "Unpin", shown: device.pinned_release !== null },
    { name: "hold", label: "Hold", shown: device.state === "active" && !held },
    { name: "end hold", label: "End hold", shown: held },
    { name: "suspend", label: "Suspend", shown: device.state === "active" || device.state === "pending" },
  ];
  return (
    <Group gap="xs" role="group" aria-label="Actions">
      {actions.filter(({ shown }) => shown).map(({ name, label, primary }) => (
        <Button
          key={name}
          size="compact-md"
          variant={primary ? "filled" : "default"}
          onClick={() => setAction(name)}
        >
          {label}
        </Button>
      ))}
      {action && (
        <ConfirmAction
          action={action}
          device={device}
          fingerprint={fingerprint}
          close={() => setAction(null)}
        />
      )}
    </Group>
  );
}

export function ConfirmAction(
  { action, device, fingerprint, close }: {
    action: Action;
    device: DeviceRow;
    fingerprint: string | null;
    close: () => void;
  },
) {
  const client = useClient();
  const cache = useQueryClient();
  const releases = (useReleases().data ?? []).filter(({ state }) => state === "available");
  const [release, setRelease] = useState(device.pinned_release ?? releases[0]?.id ?? "");
  const done = async (change: Promise<void>) => {
    await change;
    await cache.invalidateQueries({ queryKey: KEYS.device(device.id) });
    await cache.invalidateQueries({ queryKey: KEYS.devices });
  };
  const { id, name } = device;

  switch (action) {
    case "accept":
      return (
        <ConfirmWithReason
          title={`Accept ${name}?`}
          action={`Accept ${name}`}
          run={() => done(acceptDevice(client, id))}
          close={close}
        >
          <Text size="sm">
            It joins the fleet and receives the releases of its role, segment, and branch. Anyone can ask for
            a name, so compare the fingerprint with the one that <code>fleet-agent enroll</code>{" "}
            shows on the device:
          </Text>
          <Text fw={600}>
            {fingerprint ?? <code>fleetctl device show {name}</code>}
          </Text>
        </ConfirmWithReason>
      );
    case "hold":
      return (
        <ConfirmWithReason
          title={`Hold ${name}?`}
          action={`Hold ${name}`}
          reasonLabel="Reason"
          run={(reason) => done(holdDevice(client, id, reason))}
          close={close}
        >
          <Text size="sm">It keeps its current release and gets no updates until the hold ends.</Text>
        </ConfirmWithReason>
      );
    case "end hold":
      return (
        <ConfirmWithReason
          title={`End the hold on ${name}?`}
          action="End hold"
          run={() => done(endHold(client, id))}
          close={close}
        >
          <Text size="sm">It may update right away.</Text>
        </ConfirmWithReason>
      );
    case "pin":
      return (
        <ConfirmWithReason
          title={`Pin ${name} to a release?`}
          action={`Pin ${name}`}
          run={() => done(pinDevice(client, id, release))}
          close={close}
        >
          <NativeSelect
            label="Release"
            data-autofocus
            value={release}
            onChange={(event) => setRelease(event.currentTarget.value)}
            data={releases.map((it) => ({
              value: it.id,
              label: `${it.version} (${it.branch}, ${it.commit_sha.slice(0, 12)})`,
            }))}
          />
          <Text size="sm">It updates to this release and stays on it until it is unpinned.</Text>
        </ConfirmWithReason>
      );
    case "unpin":
      return (
        <ConfirmWithReason
          title={`Unpin ${name}?`}
          action={`Unpin ${name}`}
          run={() => done(unpinDevice(client, id))}
          close={close}
        >
          <Text size="sm">It follows its branch and segment again, and may update right away.</Text>
        </ConfirmWithReason>
      );
    case "suspend":
      return (
        <ConfirmWithReason
          title={`Suspend ${name}?`}
          action={`Suspend ${name}`}
          dangerous
          run={() => done(setState(client, id, "suspended"))}
          close={close}
        >
          <Text size="sm">
            Its key stops working at its next request: no updates, no reports. The software on it keeps
            running.
          </Text>
        </ConfirmWithReason>
      );
    case "activate":
      return (
        <ConfirmWithReason
          title={`Reactivate ${name}?`}
          action={`Reactivate ${name}`}
          run={() => done(setState(client, id, "active"))}
          close={close}
        >
          <Text size="sm">
            Its key works again, and it receives the releases of its role, segment, and branch.
          </Text>
        </ConfirmWithReason>
      );
  }
}
