/** Devices that ask to join without a token, or with one that does not let them in: compared by fingerprint, then let in. */
import { Alert, Button, Checkbox, Group, List, Stack, Text, Title } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { mayOperate } from "../auth/rank.ts";
import { useClient, useOperator } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { EmptyState } from "../components/PageFrame.tsx";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { useFingerprint } from "../devices/useFingerprint.ts";
import { counted } from "../format/size.ts";
import { soft } from "../styles/classNames.ts";
import { acceptPending, refusePending } from "./actions.ts";
import classes from "./Provisioning.module.css";
import { each, outcomeWords, type PendingRow } from "./provisioning.ts";

type Answer = "accept" | "refuse";
const DONE: Record<Answer, string> = { accept: "Accepted", refuse: "Refused" };

export function PendingDevices({ pending }: { pending: readonly PendingRow[] }) {
  const client = useClient();
  const cache = useQueryClient();
  const may = mayOperate(useOperator().rank);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [asking, setAsking] = useState<Answer | null>(null);
  const rows = pending.filter(({ id }) => chosen.has(id));
  const act = useMutation({
    mutationFn: async (answer: Answer) => {
      const one = answer === "accept" ? acceptPending : refusePending;
      const outcomes = await each(rows, ({ id }) => one(client, id));
      setChosen(new Set());
      await cache.invalidateQueries();
      return { answer, outcomes };
    },
  });
  const choose = (id: string, on: boolean) => {
    const next = new Set(chosen);
    if (on) next.add(id);
    else next.delete(id);
    setChosen(next);
  };

  return (
    <Stack component="section" aria-labelledby="pending" gap="sm">
      <Title order={2} size="h4" id="pending">Devices that ask to join</Title>
      {act.data && <Outcomes verb={DONE[act.data.answer]} outcomes={act.data.outcomes} />}
      {pending.length === 0
        ? (
          <EmptyState title="No device is waiting">
            A machine that enrolls without a token waits here until somebody accepts it. With a token it joins
            on its own.
          </EmptyState>
        )
        : (
          <Text size="sm" className={soft}>
            Anyone can ask for a name. Compare each fingerprint with the one that{" "}
            <code>fleet-agent enroll</code> shows on the device.
          </Text>
        )}
      <ul className={classes.list}>
        {pending.map((row) => (
          <PendingItem
            key={row.id}
            row={row}
            chosen={chosen.has(row.id)}
            choose={may ? (on) => choose(row.id, on) : null}
          />
        ))}
      </ul>
      {may && pending.length > 0 && (
        <Group>
          <Button disabled={rows.length === 0} onClick={() => setAsking("accept")}>
            Accept {counted(rows.length, "device")}
          </Button>
          <Button variant="default" disabled={rows.length === 0} onClick={() => setAsking("refuse")}>
            Refuse {counted(rows.length, "device")}
          </Button>
        </Group>
      )}
      {asking && (
        <ConfirmWithReason
          title={asking === "accept" ? "Let these devices in?" : "Refuse these devices?"}
          action={`${asking === "accept" ? "Accept" : "Refuse"} ${counted(rows.length, "device")}`}
          dangerous={asking === "refuse"}
          run={async () => {
            await act.mutateAsync(asking);
          }}
          close={() => setAsking(null)}
        >
          <Text size="sm">
            {asking === "accept"
              ? "They join the fleet and receive the releases of their role, segment, and branch."
              : "Their requests are removed. A refused machine may ask again, with a new key."}
          </Text>
          <List size="sm">
            {rows.map((row) => (
              <List.Item key={row.id}>
                <b>{row.name}</b> <Fingerprint of={row} />
              </List.Item>
            ))}
          </List>
        </ConfirmWithReason>
      )}
    </Stack>
  );
}

function PendingItem(
  { row, chosen, choose }: { row: PendingRow; chosen: boolean; choose: ((on: boolean) => void) | null },
) {
  return (
    <li className={classes.row} data-pending={row.name}>
      {choose
        ? (
          <Checkbox
            aria-label={`Select ${row.name}`}
            checked={chosen}
            onChange={(event) => choose(event.currentTarget.checked)}
          />
        )
        : <span />}
      <div>
        <Text fw={600}>{row.name}</Text>
        <Text size="sm">
          <Fingerprint of={row} />
        </Text>
        <Text size="sm" className={soft}>
          {[row.hardware_model, row.os].filter(Boolean).join(", ") || "Unknown hardware"}; would be {row.role}
          {" "}
          in {row.segment} on {row.branch}
        </Text>
      </div>
      <Text size="sm" className={soft}>
        asked <RelativeTime at={row.created_at} />
      </Text>
    </li>
  );
}

function Fingerprint({ of: { public_key, name } }: { of: PendingRow }) {
  const print = useFingerprint(public_key);
  return <code>{print ?? `fleetctl device show ${name}`}</code>;
}

function Outcomes({ verb, outcomes }: { verb: string; outcomes: Awaited<ReturnType<typeof each>> }) {
  const failed = outcomes.filter(({ error }) => error !== null);
  return (
    <Alert
      color={failed.length > 0 ? "yellow" : "blue"}
      variant="light"
      role="status"
      title={outcomeWords(verb, outcomes)}
    >
      {failed.length > 0 && (
        <List size="sm">
          {failed.map(({ name, error }) => <List.Item key={name}>{name}: {error}</List.Item>)}
        </List>
      )}
    </Alert>
  );
}
