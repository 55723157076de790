/** One device: what it is, why it is where it is, what it tried and what it said last. */
import { Anchor, Grid, Group, Stack, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";
import { Link } from "wouter";
import { mayOperate } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { Icon } from "../components/Icon.tsx";
import { Loading } from "../components/Loading.tsx";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { useNow } from "../components/useNow.ts";
import { fields } from "../data/json.ts";
import { deviceView } from "../devices/deviceView.ts";
import { pollIntervalS } from "../devices/shownState.ts";
import { StateLabel } from "../devices/StateLabel.tsx";
import { sharedRows } from "../fleet/fleetData.ts";
import { useFleet } from "../fleet/useFleet.ts";
import { span } from "../format/time.ts";
import { History } from "./AttemptList.tsx";
import { Actions } from "./DeviceActions.tsx";
import classes from "./DevicePage.module.css";
import { Gates } from "./GateList.tsx";
import { clockDrift, containers, logLines, meters, ownSettings } from "./report.ts";
import { Containers, LogTail, Resources } from "./ReportSections.tsx";
import { safeMode } from "./safeMode.ts";
import { SafeModeNotice } from "./SafeModeNotice.tsx";
import { Section } from "./Section.tsx";
import { useDevice } from "./useDevice.ts";

export default function DevicePage({ id }: { id: string }) {
  const operator = useOperator();
  const { fleet, error } = useFleet();
  const { device, status, history, explained } = useDevice(id);
  const now = useNow(5000);
  const failed = device.error ?? status.error ?? error;
  if (!fleet || device.data === undefined || status.data === undefined) {
    return failed ? <ErrorAlert error={failed} title="The device could not be read" /> : <Loading />;
  }
  if (device.data === null) {
    return (
      <Stack align="flex-start">
        <BackLink />
        <Title order={1} size="h2">There is no such device</Title>
        <Text>It may have been removed, or the address is not complete.</Text>
      </Stack>
    );
  }
  const row = device.data;
  const said = status.data;
  const view = deviceView(row, said ?? undefined, sharedRows(fleet), now);
  const inSafeMode = safeMode(said, view.current);
  const drift = said && clockDrift(said.device_time, said.reported_at);
  const labels = Object.entries(fields(row.labels));
  const facts: [string, ReactNode][] = [
    ["Runs", view.current ?? "nothing yet"],
    ["Should run", explained.data?.release ?? view.target ?? "nothing else"],
    ["Last contact", <RelativeTime key="contact" at={view.contactAt} />],
    ["Checks in every", span(pollIntervalS(row, said ?? undefined, fleet.settings) * 1000)],
    ["Role", row.role],
    ["Segment", row.segment],
    ["Branch", row.branch],
    ["Agent", said?.agent_version ?? "unknown"],
    ["Hardware", row.hardware_model ?? "unknown"],
    ["System", row.os ?? "unknown"],
    ["Time zone", row.timezone],
    ["Enrolled", <RelativeTime key="enrolled" at={row.enrolled_at} />],
  ];
  if (row.maintenance_window) facts.push(["Window", row.maintenance_window]);
  if (drift) facts.push(["Its clock is", <b key="drift">{drift}</b>]);
  if (labels.length > 0) {
    facts.push([
      "Labels",
      labels.map(([key, value]) => `${key}: ${String(value)}`).join(", "),
    ]);
  }
  const own = ownSettings(said?.settings);
  if (own.length > 0) facts.push(["Set by its own file", own.join(", ")]);

  return (
    <Stack>
      <BackLink />
      <Group justify="space-between" align="flex-start">
        <div>
          <Group gap="md">
            <Title order={1} size="h2" style={{ overflowWrap: "anywhere" }}>{row.name}</Title>
            <StateLabel state={view.shown} size={22} />
          </Group>
          <Text mt={4} maw="60rem" style={{ overflowWrap: "anywhere" }}>{view.why}</Text>
        </div>
        {mayOperate(operator.rank) && row.state !== "retired" && <Actions device={row} held={view.held} />}
      </Group>
      {failed && (
        <ErrorAlert error={failed} title="This could not be read again; you see what was read before" />
      )}
      {inSafeMode && <SafeModeNotice mode={inSafeMode} device={row} mayOperate={mayOperate(operator.rank)} />}
      <Grid>
        <Grid.Col span={{ base: 12, md: 8 }}>
          <Stack>
            <Section title="What the control plane decides, and why">
              {explained.error
                ? <ErrorAlert error={explained.error} />
                : explained.data && <Gates explained={explained.data} />}
            </Section>
            <Section title="Updates">
              {history.error
                ? <ErrorAlert error={history.error} />
                : history.data && <History rows={history.data} releases={fleet.releases} />}
            </Section>
            <Section title="Last warnings and errors">
              <LogTail lines={logLines(said?.log_tail)} />
            </Section>
          </Stack>
        </Grid.Col>
        <Grid.Col span={{ base: 12, md: 4 }}>
          <Stack>
            <Section title="Device">
              <dl className={classes.facts}>
                {facts.map(([name, value]) => (
                  <div key={name}>
                    <dt>{name}</dt>
                    <dd>{value}</dd>
                  </div>
                ))}
              </dl>
            </Section>
            <Section title="Containers">
              <Containers containers={containers(said?.containers)} />
            </Section>
            <Section title="Resources">
              <Resources meters={meters(said?.resources)} />
            </Section>
          </Stack>
        </Grid.Col>
      </Grid>
    </Stack>
  );
}

function BackLink() {
  return (
    <Anchor component={Link} href="/" size="sm" c="inherit" w="fit-content">
      <Group gap={4} wrap="nowrap">
        <Icon name="back" size={16} /> All devices
      </Group>
    </Anchor>
  );
}
