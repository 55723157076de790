/** One device: what it is, why it is in its state, its update attempts and its last report. */
import { Button, Stack, Text } from "@mantine/core";
import type { ReactNode } from "react";
import { mayOperate } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { PageFrame } from "../components/PageFrame.tsx";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { useNow } from "../components/useNow.ts";
import { fields } from "../data/json.ts";
import { deviceView } from "../devices/deviceView.ts";
import { pollIntervalS } from "../devices/shownState.ts";
import { StateLabel } from "../devices/StateLabel.tsx";
import { useFingerprint } from "../devices/useFingerprint.ts";
import { useSharedRows } from "../fleet/useFleet.ts";
import { useDraft } from "../forms/useDraft.ts";
import { span } from "../format/time.ts";
import { declaredAccess } from "./access.ts";
import { AttemptList } from "./AttemptList.tsx";
import { DeviceActions } from "./DeviceActions.tsx";
import classes from "./DevicePage.module.css";
import { EditDevice, type EditedDevice, editedDevice } from "./EditDevice.tsx";
import { GateList } from "./GateList.tsx";
import { clockDrift, containers, logLines, meters, ownSettings } from "./report.ts";
import { Containers, LogTail, Resources } from "./ReportSections.tsx";
import { safeMode } from "./safeMode.ts";
import { SafeModeNotice } from "./SafeModeNotice.tsx";
import { Section } from "./Section.tsx";
import { Timeline } from "./Timeline.tsx";
import { useDevice } from "./useDevice.ts";

const ALL_DEVICES = { href: "/devices", title: "All devices" };

export default function DevicePage({ id }: { id: string }) {
  const operator = useOperator();
  const { shared, error } = useSharedRows();
  const { device, status, history, explained } = useDevice(id);
  const key = useFingerprint(device.data?.public_key ?? null);
  const now = useNow(5000);
  const form = useDraft<EditedDevice>(`devices:${id}`);
  const failed = device.error ?? status.error ?? error;
  if (!shared || device.data === undefined || status.data === undefined) {
    return <PageFrame title="Device" back={ALL_DEVICES} loading error={failed} />;
  }
  if (device.data === null) {
    return (
      <PageFrame title="Device not found" back={ALL_DEVICES}>
        <Text>It may have been removed, or the address may be incomplete.</Text>
      </PageFrame>
    );
  }
  const row = device.data;
  const report = status.data;
  const mayEdit = mayOperate(operator.rank) && row.state !== "retired";
  const view = deviceView(row, report ?? undefined, shared, now);
  const access = declaredAccess(shared.releases.get(report?.current_release ?? ""), row.role);
  const inSafeMode = safeMode(report, view.current);
  const drift = report && clockDrift(report.device_time, report.reported_at);
  const labels = Object.entries(fields(row.labels));
  const details: [string, ReactNode][] = [
    ["Running", view.current ?? "nothing yet"],
    ["Should run", explained.data?.release ?? view.target ?? "the same"],
    ["Last contact", <RelativeTime key="contact" at={view.contactAt} />],
    ["Poll interval", span(pollIntervalS(row, report ?? undefined, shared.settings) * 1000)],
    ["Role", row.role],
    ["Segment", row.segment],
    ["Branch", row.branch],
    ["Agent", report?.agent_version ?? "unknown"],
    ["Hardware", row.hardware_model ?? "unknown"],
    ["OS", row.os ?? "unknown"],
    ["Time zone", row.timezone],
    ["Enrolled", <RelativeTime key="enrolled" at={row.enrolled_at} />],
  ];
  if (key) details.push(["Fingerprint", key]);
  if (row.maintenance_window) details.push(["Maintenance window", row.maintenance_window]);
  if (drift) details.push(["Clock", <b key="drift">{drift}</b>]);
  if (labels.length > 0) {
    details.push([
      "Labels",
      labels.map(([key, value]) => `${key}: ${String(value)}`).join(", "),
    ]);
  }
  for (const { word, reason } of access) {
    details.push([word === "root" ? "Role is root on the device" : `Role takes ${word}`, reason]);
  }
  const own = ownSettings(report?.settings);
  if (own.length > 0) details.push(["Set locally (device.json)", own.join(", ")]);

  return (
    <PageFrame
      title={row.name}
      mark={<StateLabel state={view.shown} size={22} />}
      intro={view.why}
      back={ALL_DEVICES}
      error={failed}
      actions={mayEdit && <DeviceActions device={row} held={view.held} fingerprint={key ?? null} />}
    >
      {inSafeMode && <SafeModeNotice mode={inSafeMode} device={row} mayOperate={mayOperate(operator.rank)} />}
      <div className={classes.columns}>
        <Stack>
          <Section title="Update decision">
            {explained.error
              ? <ErrorAlert error={explained.error} />
              : explained.data && <GateList explained={explained.data} device={mayEdit ? row : null} />}
          </Section>
          <Section title="Update attempts">
            {history.error
              ? <ErrorAlert error={history.error} />
              : history.data && <AttemptList rows={history.data} releases={[...shared.releases.values()]} />}
          </Section>
          <Section title="Timeline">
            <Timeline id={id} />
          </Section>
          <Section title="Recent warnings and errors">
            <LogTail lines={logLines(report?.log_tail)} />
          </Section>
        </Stack>
        <Stack>
          <Section title="Device">
            {mayEdit && form.draft && <EditDevice row={row} form={form} />}
            {mayEdit && !form.draft && (
              <Button
                size="compact-sm"
                variant="default"
                mb="sm"
                onClick={() => form.begin(editedDevice(row))}
              >
                Edit
              </Button>
            )}
            <dl className={classes.details}>
              {details.map(([name, value]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{value}</dd>
                </div>
              ))}
            </dl>
          </Section>
          <Section title="Containers">
            <Containers containers={containers(report?.containers)} />
          </Section>
          <Section title="Resources">
            <Resources meters={meters(report?.resources)} />
          </Section>
        </Stack>
      </div>
    </PageFrame>
  );
}
