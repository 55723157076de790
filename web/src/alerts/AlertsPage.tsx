/** What policy wants looked at, and the button that says somebody does. */
import { Anchor, Button, Group, Stack, Text, Title } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { Link } from "wouter";
import { mayOperate } from "../auth/rank.ts";
import { useClient, useOperator } from "../auth/session.tsx";
import { KEYS, useOpenAlerts } from "../fleet/useFleet.ts";
import type { AlertRow } from "../data/rows.ts";
import { Ago } from "../components/RelativeTime.tsx";
import { AskReason } from "../components/ConfirmWithReason.tsx";
import { ProblemAlert } from "../components/ErrorAlert.tsx";
import { Toned } from "../components/StatusText.tsx";
import { Waiting } from "../components/Loading.tsx";
import { acknowledge } from "./actions.ts";
import { acknowledgeLabel, inOrder, isWaiting, kindWords, SEVERITIES, tally } from "./alerts.ts";
import classes from "./AlertsPage.module.css";

export default function AlertsPage() {
  const client = useClient();
  const cache = useQueryClient();
  const operator = useOperator();
  const { data: open, error } = useOpenAlerts();
  const [askingAll, setAskingAll] = useState(false);
  const shown = useMemo(() => inOrder(open ?? []), [open]);
  const waiting = shown.filter(isWaiting);
  const look = async (alerts: readonly AlertRow[]) => {
    await acknowledge(client, alerts.map(({ id }) => id));
    await cache.invalidateQueries({ queryKey: KEYS.alerts });
  };
  const one = useMutation({ mutationFn: (alert: AlertRow) => look([alert]) });

  if (!open) return error ? <ProblemAlert error={error} title="The alerts could not be read" /> : <Waiting />;
  return (
    <Stack>
      <Group justify="space-between" align="center">
        <Title order={1} size="h2">Alerts</Title>
        {mayOperate(operator.rank) && waiting.length > 1 && (
          <Button
            variant="default"
            onClick={() => setAskingAll(true)}
          >
            {acknowledgeLabel(waiting)}
          </Button>
        )}
      </Group>
      {error && (
        <ProblemAlert error={error} title="This could not be read again; you see what was read before" />
      )}
      {one.error && <ProblemAlert error={one.error} title="It is not acknowledged" />}
      <Text size="sm" className="soft" role="status">
        {shown.length === 0
          ? "Nothing to look at. Policy opens an alert here when it stops something or a device goes offline."
          : `${tally(shown)}. Each resolves by itself when its cause is over.`}
      </Text>
      <ul className={classes.alerts}>
        {shown.map((alert) => {
          const severity = SEVERITIES[alert.severity];
          return (
            <li key={alert.id} className={classes.alert} data-alert={alert.kind}>
              <Toned tone={severity.tone} icon={severity.icon}>{severity.word}</Toned>
              <div>
                <Text className={classes.said}>{alert.summary}</Text>
                <div className={`soft ${classes.about}`}>
                  <span className={classes.kind}>{kindWords(alert.kind)}</span>
                  {alert.devices && (
                    <Anchor component={Link} href={`/devices/${alert.device_id}`} fz="inherit">
                      {alert.devices.name}
                    </Anchor>
                  )}
                  {alert.rollouts && <span>rollout {alert.rollouts.name}</span>}
                  <Ago at={alert.opened_at} />
                  {alert.acknowledged_at && (
                    <span>
                      acknowledged {alert.acknowledged_by === operator.userId ? "by you " : ""}
                      <Ago at={alert.acknowledged_at} />
                    </span>
                  )}
                </div>
              </div>
              {mayOperate(operator.rank) && isWaiting(alert) && (
                <Button
                  size="compact-sm"
                  variant="default"
                  aria-label={`Acknowledge: ${alert.summary}`}
                  loading={one.isPending && one.variables.id === alert.id}
                  onClick={() => one.mutate(alert)}
                >
                  Acknowledge
                </Button>
              )}
            </li>
          );
        })}
      </ul>
      {askingAll && (
        <AskReason
          title="Acknowledge them all?"
          action={acknowledgeLabel(waiting)}
          run={() => look(waiting)}
          close={() => setAskingAll(false)}
        >
          <Text size="sm">
            Everybody sees that you look at them, and nobody else is called for. They stay open until their
            cause is over.
          </Text>
        </AskReason>
      )}
    </Stack>
  );
}
