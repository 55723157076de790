/** The front page: how the fleet is, what rolls out, what needs attention, and what changed. */
import { Anchor, NativeSelect, Text } from "@mantine/core";
import { lazy, type ReactNode, Suspense, useState } from "react";
import { Link } from "wouter";
import { mayOperate } from "../auth/rank.ts";
import { useOperator } from "../auth/session.tsx";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { EmptyState, PageFrame } from "../components/PageFrame.tsx";
import { useHasPage } from "../components/pagesContext.ts";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { SEVERITIES } from "../components/severities.ts";
import { StatusText } from "../components/StatusText.tsx";
import { useNow } from "../components/useNow.ts";
import {
  readAdoption,
  readLastDay,
  readNames,
  readOpenAlerts,
  readOpenRollouts,
  readOverview,
} from "../data/reads.ts";
import { LOOKS, STATES } from "../devices/shownState.ts";
import { stateCounts } from "../devices/stateCounts.ts";
import { useLive } from "../fleet/useLive.ts";
import { counted } from "../format/size.ts";
import { EmergencyStop } from "../halts/EmergencyStop.tsx";
import { HaltPart } from "../halts/HaltPart.tsx";
import { numbers, soft } from "../styles/classNames.ts";
import { parseAdoption } from "./adoption.ts";
import { happenings } from "./lastDay.ts";
import classes from "./OverviewPage.module.css";
import { nextWords, type OpenRollout, parseOpenRollouts, progressWords, stageWords } from "./rollouts.ts";

const AdoptionChart = lazy(() => import("./AdoptionChart.tsx"));

const ALERTS_SHOWN = 5;

export default function OverviewPage() {
  const operator = useOperator();
  const overview = useLive({
    key: ["overview"],
    tables: ["devices", "device_status", "halts", "alerts", "rollouts"],
    read: readOverview,
  });
  return (
    <PageFrame
      title="Overview"
      loading={!overview.data}
      error={overview.error}
      actions={mayOperate(operator.rank) && (
        <>
          <HaltPart />
          <EmergencyStop />
        </>
      )}
    >
      {overview.data && (
        <div className={classes.parts}>
          <Part title="Devices" wide>
            <Link href="/devices" className={classes.total} data-testid="devices-total">
              <b className={numbers}>{(overview.data.devices ?? 0).toLocaleString("en")}</b> in the fleet
            </Link>
            {overview.data.devices === 0
              ? (
                <EmptyState title="No devices have enrolled yet.">
                  <code>fleetctl token create</code>{" "}
                  prints a line; run it on the device, and it will appear here.
                </EmptyState>
              )
              : (
                <ul className={classes.states} aria-label="Devices by state">
                  {STATES.map((state) => [state, stateCounts(overview.data).get(state) ?? 0] as const)
                    .filter(([, count]) => count > 0).map(([state, count]) => (
                      <li key={state}>
                        <Link
                          href={`/devices?select=shown%3D${state}`}
                          className={classes.state}
                          title={LOOKS[state].meaning}
                          data-state={state}
                        >
                          <StatusText tone={LOOKS[state].tone} icon={LOOKS[state].icon} size={20}>
                            <b className={numbers}>{count.toLocaleString("en")}</b> {LOOKS[state].word}
                          </StatusText>
                        </Link>
                      </li>
                    ))}
                </ul>
              )}
          </Part>
          <Rollouts />
          <Alerts />
          <LastDay />
          <Versions />
        </div>
      )}
    </PageFrame>
  );
}

function Part({ title, wide, children }: { title: string; wide?: boolean; children: ReactNode }) {
  return (
    <section className={wide ? `${classes.part} ${classes.wide}` : classes.part} aria-label={title}>
      <h2 className={classes.heading}>{title}</h2>
      {children}
    </section>
  );
}

function Rollouts() {
  const { data, error } = useLive({
    key: ["open rollouts"],
    tables: ["rollouts", "rollout_stages", "update_history", "device_status", "devices", "halts"],
    read: async (client) => parseOpenRollouts(await readOpenRollouts(client)),
  });
  return (
    <Part title="Rollouts">
      {error && <ErrorAlert error={error} title="Could not load the rollouts" />}
      {data?.length === 0 && (
        <Text size="sm" className={soft}>
          No rollout is running. <code>fleetctl rollout start VERSION</code> starts one.
        </Text>
      )}
      <ul className={classes.list}>
        {data?.map((rollout) => <RolloutLine key={rollout.id} rollout={rollout} />)}
      </ul>
    </Part>
  );
}

function RolloutLine({ rollout }: { rollout: OpenRollout }) {
  const now = useNow(10_000);
  const state = rollout.halted
    ? { tone: "bad", icon: "stop", word: "Halted" } as const
    : rollout.state === "paused"
    ? { tone: "warn", icon: "pause", word: "Paused" } as const
    : { tone: "busy", icon: "arrows", word: "Running" } as const;
  return (
    <li className={classes.rollout} data-rollout={rollout.name}>
      <div className={classes.line}>
        <b className={classes.name}>{rollout.name}</b>
        <StatusText tone={state.tone} icon={state.icon}>{state.word}</StatusText>
      </div>
      <Text size="sm">
        {progressWords(rollout)} <span className={soft}>· {rollout.audience}</span>
      </Text>
      <ol className={classes.stages}>
        {rollout.stages.map((stage) => (
          <li key={stage.position} data-stage={stage.position}>
            <span className={soft}>
              Stage {stage.position}
              {stage.open ? "" : " (not open yet)"}: {stageWords(stage)}
            </span>
            <div className={classes.bar} aria-hidden="true">
              {stage.parts.map(({ word, tone, devices }) => (
                <span key={word} className={classes[tone]} style={{ flexGrow: devices }} />
              ))}
            </div>
          </li>
        ))}
      </ol>
      <Text size="sm" data-testid="next-event">{nextWords(rollout.next, now)}</Text>
    </li>
  );
}

function Alerts() {
  const { data, error } = useLive({
    key: ["urgent alerts"],
    tables: ["alerts"],
    read: (client) => readOpenAlerts(client, ALERTS_SHOWN),
  });
  return (
    <Part title="Alerts">
      {error && <ErrorAlert error={error} title="Could not load the alerts" />}
      {data?.length === 0 && <Text size="sm" className={soft}>No open alerts.</Text>}
      <ul className={classes.list}>
        {data?.map((alert) => (
          <li key={alert.id} data-alert={alert.kind}>
            <div className={classes.line}>
              <StatusText tone={SEVERITIES[alert.severity].tone} icon={SEVERITIES[alert.severity].icon}>
                {SEVERITIES[alert.severity].word}
              </StatusText>
              <span className={soft}>
                <RelativeTime at={alert.opened_at} />
                {alert.acknowledged_at && ", acknowledged"}
              </span>
            </div>
            <Text size="sm" className={classes.name}>
              {alert.device_id
                ? <Anchor component={Link} href={`/devices/${alert.device_id}`}>{alert.summary}</Anchor>
                : alert.summary}
            </Text>
          </li>
        ))}
      </ul>
      {data && data.length > 0 && <Anchor component={Link} href="/alerts" fz="sm">All alerts</Anchor>}
    </Part>
  );
}

function LastDay() {
  const { data, error } = useLive({
    key: ["last day"],
    tables: ["update_history", "devices", "releases", "rollouts", "halts", "alerts"],
    read: readLastDay,
  });
  const hasPage = useHasPage();
  const found = data && happenings(data);
  return (
    <Part title="Last 24 hours">
      {error && <ErrorAlert error={error} title="Could not load what happened" />}
      {found?.length === 0 && <Text size="sm" className={soft}>Nothing changed.</Text>}
      <ul className={classes.list}>
        {found?.map(({ words, href }) => (
          <li key={words}>
            {hasPage(href)
              ? <Link href={href} className={classes.happening}>{words}</Link>
              : <span className={classes.happening}>{words}</span>}
          </li>
        ))}
      </ul>
    </Part>
  );
}

const SPANS = [{ value: "14", label: "2 weeks" }, { value: "30", label: "30 days" }, {
  value: "90",
  label: "90 days",
}, {
  value: "365",
  label: "1 year",
}];

function Versions() {
  const [days, setDays] = useState("30");
  const [role, setRole] = useState("");
  const [branch, setBranch] = useState("");
  const { data, error } = useLive({
    key: ["adoption", days, role, branch],
    tables: ["releases"],
    read: async (client) =>
      parseAdoption(await readAdoption(client, Number(days), role || null, branch || null)),
    keepPrevious: true,
  });
  const roles = useLive({
    key: ["names", "device_roles"],
    tables: ["device_roles"],
    read: (client) => readNames(client, "device_roles"),
  });
  const branches = useLive({
    key: ["names", "branches"],
    tables: ["branches"],
    read: (client) => readNames(client, "branches"),
  });
  const running = data?.series.reduce((sum, { devices }) => sum + (devices.at(-1) ?? 0), 0) ?? 0;
  return (
    <Part title="Versions over time" wide>
      <div className={classes.choices}>
        <NativeSelect
          label="Time"
          size="xs"
          value={days}
          data={SPANS}
          onChange={(event) => setDays(event.currentTarget.value)}
        />
        <NativeSelect
          label="Role"
          size="xs"
          value={role}
          data={[{ value: "", label: "All roles" }, ...(roles.data ?? [])]}
          onChange={(event) => setRole(event.currentTarget.value)}
        />
        <NativeSelect
          label="Branch"
          size="xs"
          value={branch}
          data={[{ value: "", label: "All branches" }, ...(branches.data ?? [])]}
          onChange={(event) => setBranch(event.currentTarget.value)}
        />
      </div>
      {error && <ErrorAlert error={error} title="Could not load the versions" />}
      {data && (
        <Text size="sm" className={soft}>
          {counted(running, "active device")} {running === 1 ? "runs" : "run"} a release today.
        </Text>
      )}
      <Suspense>{data && <AdoptionChart adoption={data} />}</Suspense>
    </Part>
  );
}
