import { Button, Group, NativeSelect, Text } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { KEYS } from "../data/queries.ts";
import type { DeviceRow } from "../data/rows.ts";
import { useReleases } from "../fleet/useFleet.ts";
import { acceptDevice, endHold, holdDevice, pinDevice, setState, unpinDevice } from "./actions.ts";

type Asked = "accept" | "hold" | "end hold" | "pin" | "unpin" | "suspend" | "activate";

/** What may be done to this device now; each asks first and says what follows. */
export function Actions({ device, held }: { device: DeviceRow; held: boolean }) {
  const [asked, setAsked] = useState<Asked | null>(null);
  const offered: { asked: Asked; word: string; shown: boolean; main?: boolean }[] = [
    { asked: "accept", word: "Accept", shown: device.state === "pending", main: true },
    { asked: "activate", word: "Let it back in", shown: device.state === "suspended", main: true },
    { asked: "pin", word: device.pinned_release ? "Change pin" : "Pin", shown: device.state === "active" },
    { asked: "unpin", word: "Unpin", shown: device.pinned_release !== null },
    { asked: "hold", word: "Hold", shown: device.state === "active" && !held },
    { asked: "end hold", word: "End hold", shown: held },
    { asked: "suspend", word: "Suspend", shown: device.state === "active" || device.state === "pending" },
  ];
  return (
    <Group gap="xs" role="group" aria-label="Actions">
      {offered.filter(({ shown }) => shown).map(({ asked: action, word, main }) => (
        <Button
          key={action}
          size="compact-md"
          variant={main ? "filled" : "default"}
          onClick={() => setAsked(action)}
        >
          {word}
        </Button>
      ))}
      {asked && <Ask asked={asked} device={device} close={() => setAsked(null)} />}
    </Group>
  );
}

function Ask({ asked, device, close }: { asked: Asked; device: DeviceRow; close: () => void }) {
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

  switch (asked) {
    case "accept":
      return (
        <ConfirmWithReason
          title={`Accept ${name}?`}
          action={`Accept ${name}`}
          run={() => done(acceptDevice(client, id))}
          close={close}
        >
          <Text size="sm">
            It becomes part of the fleet and gets what its role, segment and branch get. Accept only a device
            that you know.
          </Text>
        </ConfirmWithReason>
      );
    case "hold":
      return (
        <ConfirmWithReason
          title={`Hold ${name}?`}
          action={`Hold ${name}`}
          reasonLabel="Why"
          run={(reason) => done(holdDevice(client, id, reason))}
          close={close}
        >
          <Text size="sm">It keeps what it runs and gets no updates until the hold is ended.</Text>
        </ConfirmWithReason>
      );
    case "end hold":
      return (
        <ConfirmWithReason
          title={`End the hold of ${name}?`}
          action="End hold"
          run={() => done(endHold(client, id))}
          close={close}
        >
          <Text size="sm">It may update again at once.</Text>
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
          <Text size="sm">It moves to this release, and stays on it until it is unpinned.</Text>
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
          <Text size="sm">It follows its branch and segment again, and may update at once.</Text>
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
            Its key stops working with its next request: no updates, no reports. What runs on it keeps
            running.
          </Text>
        </ConfirmWithReason>
      );
    case "activate":
      return (
        <ConfirmWithReason
          title={`Let ${name} back in?`}
          action={`Let ${name} back in`}
          run={() => done(setState(client, id, "active"))}
          close={close}
        >
          <Text size="sm">Its key works again, and it gets what its role, segment and branch get.</Text>
        </ConfirmWithReason>
      );
  }
}
