/** Attempts, commands, edits, alerts and halts of one device in one list, the latest first. */
import { Button, Text } from "@mantine/core";
import { useState } from "react";
import { ErrorAlert } from "../components/ErrorAlert.tsx";
import { RelativeTime } from "../components/RelativeTime.tsx";
import { StatusText } from "../components/StatusText.tsx";
import { readTimeline } from "../data/reads.ts";
import { useLive } from "../fleet/useLive.ts";
import { soft } from "../styles/classNames.ts";
import classes from "./Timeline.module.css";
import { parseTimeline } from "./timeline.ts";

const STEP = 30;
const MOST = 480;

export function Timeline({ id }: { id: string }) {
  const [count, setCount] = useState(STEP);
  const { data, error } = useLive({
    key: ["timeline", id, count],
    tables: ["devices", "update_history", "device_commands", "alerts", "halts", "known_bad_releases"],
    read: async (client) => parseTimeline(await readTimeline(client, id, count)),
    keepPrevious: true,
  });
  if (error && !data) return <ErrorAlert error={error} />;
  return (
    <>
      {data?.length === 0 && <Text size="sm" className={soft}>Nothing has happened yet.</Text>}
      <ol className={classes.entries}>
        {data?.map((entry) => (
          <li key={entry.key} data-entry={entry.what}>
            <div className={classes.line}>
              <StatusText tone={entry.tone} icon={entry.icon} wrap>{entry.sentence}</StatusText>
            </div>
            {entry.detail && <Text size="sm" className={classes.detail}>{entry.detail}</Text>}
            <Text size="xs" className={soft}>
              <RelativeTime at={entry.at} />
              {entry.by && `, by ${entry.by}`}
            </Text>
          </li>
        ))}
      </ol>
      {data && data.length >= count && count < MOST && (
        <Button
          size="compact-sm"
          variant="default"
          onClick={() => setCount(Math.min(MOST, count * 4))}
        >
          Show more
        </Button>
      )}
    </>
  );
}
