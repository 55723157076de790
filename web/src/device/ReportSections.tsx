import { Progress, Text } from "@mantine/core";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { StatusText } from "../components/StatusText.tsx";
import { counted } from "../format/size.ts";
import { clock } from "../format/time.ts";
import { numbers, soft } from "../styles/classNames.ts";
import { type ContainerView, type LogLine, type Meter } from "./report.ts";
import classes from "./ReportSections.module.css";

export function Resources({ meters }: { meters: readonly Meter[] }) {
  if (meters.length === 0) return <Text size="sm" className={soft}>None reported.</Text>;
  return (
    <dl className={classes.meters}>
      {meters.map(({ name, share, shown, tone }) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd className={numbers}>
            {shown}
            {tone === "bad" && <b>: too high</b>}
            {tone === "warn" && <b>: high</b>}
            {share !== null && (
              <Progress
                value={share * 100}
                color={`var(--tone-${tone})`}
                size="sm"
                aria-label={name}
                className={classes.meter}
              />
            )}
          </dd>
        </div>
      ))}
    </dl>
  );
}

export function Containers({ containers }: { containers: readonly ContainerView[] }) {
  if (containers.length === 0) return <Text size="sm" className={soft}>None reported.</Text>;
  return (
    <ul className={classes.containers}>
      {containers.map((container) => (
        <li key={container.service}>
          <b>{container.service}</b>
          <StatusText tone={container.tone} icon={container.icon}>{container.shown}</StatusText>
          <span className={soft}>
            {container.image}
            {container.startedAt && (
              <>
                {" · started "}
                <RelativeTime at={container.startedAt} />
              </>
            )}
            {container.restarts > 0 && ` · ${counted(container.restarts, "restart")}`}
          </span>
        </li>
      ))}
    </ul>
  );
}

export function LogTail({ lines }: { lines: readonly LogLine[] }) {
  if (lines.length === 0) return <Text size="sm" className={soft}>No warnings or errors.</Text>;
  return (
    <ol className={classes.log}>
      {lines.map((line, index) => (
        <li key={`${line.at} ${index}`}>
          <span className={`${soft} ${numbers}`}>{clock(line.at)}</span>
          <StatusText tone={line.bad ? "bad" : "warn"} icon="triangle" size={15}>{line.level}</StatusText>
          <span className={classes.message}>{line.message}</span>
        </li>
      ))}
    </ol>
  );
}
