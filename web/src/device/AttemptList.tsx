import { Text } from "@mantine/core";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { StatusText } from "../components/StatusText.tsx";
import { HISTORY_ROWS } from "../data/reads.ts";
import type { HistoryRow, ReleaseRow } from "../data/rows.ts";
import { took } from "../format/time.ts";
import { numbers, soft } from "../styles/classNames.ts";
import classes from "./AttemptList.module.css";
import { type AttemptView, attemptView, OUTCOMES, type Phase } from "./attempts.ts";

/** The attempts to update this device, newest first, and where their time went. */
export function AttemptList(
  { rows, releases }: { rows: readonly HistoryRow[]; releases: readonly ReleaseRow[] },
) {
  if (rows.length === 0) return <Text size="sm" className={soft}>No update attempts yet.</Text>;
  return (
    <>
      <ol className={classes.attempts}>
        {rows.map((row) => <Attempt key={row.id} attempt={attemptView(row, releases)} />)}
      </ol>
      {rows.length === HISTORY_ROWS && (
        <Text size="sm" className={soft} mt="sm">
          The last {HISTORY_ROWS} attempts. The table update_history has all of them.
        </Text>
      )}
    </>
  );
}

function Attempt({ attempt }: { attempt: AttemptView }) {
  const look = OUTCOMES[attempt.outcome];
  return (
    <li data-outcome={attempt.outcome}>
      <div className={classes.top}>
        <StatusText tone={look.tone} icon={look.icon}>{look.word}</StatusText>
        <b>{attempt.from ? `${attempt.from} → ${attempt.to}` : attempt.to}</b>
        <span className={soft}>
          <RelativeTime at={attempt.startedAt} /> · took {attempt.took}
          {attempt.fetched && ` · fetched ${attempt.fetched}`}
        </span>
      </div>
      {attempt.error && (
        <Text size="sm">
          {attempt.failedPhase && <b>In phase {attempt.failedPhase.replaceAll("_", " ")}:</b>} {attempt.error}
          {" "}
          {attempt.errorKind && <span className={soft}>({attempt.errorKind})</span>}
        </Text>
      )}
      {attempt.phases.length > 0 && <Phases phases={attempt.phases} />}
    </li>
  );
}

/** The phases as a bar, and the same in words for screen readers and touch. */
function Phases({ phases }: { phases: readonly Phase[] }) {
  return (
    <>
      <div className={classes.bar} aria-hidden="true">
        {phases.map(({ name, share, failed }) => (
          <span key={name} style={{ flexGrow: share }} className={failed ? classes.failed : undefined} />
        ))}
      </div>
      <ul className={classes.phases}>
        {phases.map(({ name, ms, failed }) => (
          <li key={name}>
            {failed ? <b>{name.replaceAll("_", " ")} (failed)</b> : name.replaceAll("_", " ")}{" "}
            <span className={numbers}>{took(ms)}</span>
          </li>
        ))}
      </ul>
    </>
  );
}
