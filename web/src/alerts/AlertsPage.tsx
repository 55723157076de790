/** Open alerts, and the buttons that acknowledge them. */
import { Anchor, Button, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { Link } from "wouter";
import { mayOperate } from "../auth/rank.ts";
import { useClient, useOperator } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { PageFrame } from "../components/PageFrame.tsx";
import { SEVERITIES } from "../components/severities.ts";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { StatusText } from "../components/StatusText.tsx";
import { KEYS } from "../data/queries.ts";
import type { AlertRow } from "../data/rows.ts";
import { useOpenAlerts } from "../fleet/useFleet.ts";
import { soft } from "../styles/classNames.ts";
import { acknowledge } from "./actions.ts";
import { acknowledgeLabel, inOrder, isUnacknowledged, kindWords, tally } from "./alerts.ts";
import classes from "./AlertsPage.module.css";

export default function AlertsPage() {
  const client = useClient();
  const cache = useQueryClient();
  const operator = useOperator();
  const { data: open, error } = useOpenAlerts();
  const [confirming, setConfirming] = useState(false);
  const shown = useMemo(() => inOrder(open ?? []), [open]);
  const unacknowledged = shown.filter(isUnacknowledged);
  const acknowledgeAll = async (alerts: readonly AlertRow[]) => {
    await acknowledge(client, alerts.map(({ id }) => id));
    await cache.invalidateQueries({ queryKey: KEYS.alerts });
  };
  const one = useMutation({ mutationFn: (alert: AlertRow) => acknowledgeAll([alert]) });

  return (
    <PageFrame
      title="Alerts"
      loading={!open}
      error={error}
      actions={mayOperate(operator.rank) && unacknowledged.length > 1 && (
        <Button
          variant="default"
          onClick={() => setConfirming(true)}
        >
          {acknowledgeLabel(unacknowledged)}
        </Button>
      )}
    >
      {one.error && <ErrorAlert error={one.error} title="Could not acknowledge the alert" />}
      <Text size="sm" className={soft} role="status">
        {shown.length === 0
          ? "No open alerts. An alert opens when policy halts an update or a device goes offline."
          : `${tally(shown)}. Alerts resolve automatically when the cause is gone.`}
      </Text>
      <ul className={classes.alerts}>
        {shown.map((alert) => {
          const severity = SEVERITIES[alert.severity];
          return (
            <li key={alert.id} className={classes.alert} data-alert={alert.kind}>
              <StatusText tone={severity.tone} icon={severity.icon}>{severity.word}</StatusText>
              <div>
                <Text className={classes.summary}>{alert.summary}</Text>
                <div className={`${soft} ${classes.about}`}>
                  <span className={classes.kind}>{kindWords(alert.kind)}</span>
                  {alert.devices && (
                    <Anchor component={Link} href={`/devices/${alert.device_id}`} fz="inherit">
                      {alert.devices.name}
                    </Anchor>
                  )}
                  {alert.rollouts && <span>rollout {alert.rollouts.name}</span>}
                  <RelativeTime at={alert.opened_at} />
                  {alert.acknowledged_at && (
                    <span>
                      acknowledged {alert.acknowledged_by === operator.userId ? "by you " : ""}
                      <RelativeTime at={alert.acknowledged_at} />
                    </span>
                  )}
                </div>
              </div>
              {mayOperate(operator.rank) && isUnacknowledged(alert) && (
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
      {confirming && (
        <ConfirmWithReason
          title="Acknowledge all alerts?"
          action={acknowledgeLabel(unacknowledged)}
          run={() => acknowledgeAll(unacknowledged)}
          close={() => setConfirming(false)}
        >
          <Text size="sm">
            This shows everyone that you are looking into them. They stay open until the cause is gone.
          </Text>
        </ConfirmWithReason>
      )}
    </PageFrame>
  );
}
