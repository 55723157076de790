import { Button, Stack, Text } from "@mantine/core";
import { useIsFetching, useQueryClient } from "@tanstack/react-query";
import { Disclosure } from "../components/Disclosure.tsx";
import type { IconName } from "../components/Icon.tsx";
import { StatusText } from "../components/StatusText.tsx";
import { useNow } from "../components/useNow.ts";
import { KEYS } from "../data/queries.ts";
import { span } from "../format/time.ts";
import { soft } from "../styles/classNames.ts";
import { useConnection } from "./connectionContext.ts";
import { type ConnectionStatus, connectionStatus } from "./connectionStatus.ts";

const ICONS: Record<ConnectionStatus["word"], IconName> = {
  Live: "check",
  Connecting: "hourglass",
  Polling: "clock",
  Stale: "triangle",
};

/** How fresh the page is. Pressing it says more. */
export function ConnectionIndicator() {
  const cache = useQueryClient();
  const { channel, pollSeconds } = useConnection();
  const reading = useIsFetching() > 0;
  // The ticker renders this every second, which is also when it looks at the cache.
  const now = useNow();
  const statuses = cache.getQueryState(KEYS.statuses);
  const readAt = statuses?.dataUpdatedAt ?? 0;
  // Both are times of this machine's clock; the ticker's is the server's.
  const age = readAt === 0 ? 0 : Math.max(0, Date.now() - readAt);
  const failing = (statuses?.fetchFailureCount ?? 0) > 0 || statuses?.status === "error";
  const shown = connectionStatus(
    { channel, readAt: readAt === 0 ? 0 : now - age, failing, pollSeconds },
    now,
  );
  return (
    <Disclosure
      label={`${shown.word}: how fresh this page is`}
      button={
        <span data-connection={shown.word} data-reading={reading}>
          <StatusText tone={shown.tone} icon={ICONS[shown.word]}>{shown.word}</StatusText>
        </span>
      }
    >
      <Stack gap="sm">
        <Text size="sm">{shown.sentence}</Text>
        <Text size="sm" className={soft}>
          {readAt === 0 ? "Nothing was read yet." : `Everything was read ${span(age)} ago.`}
        </Text>
        <Button variant="default" loading={reading} onClick={() => void cache.invalidateQueries()}>
          Read everything now
        </Button>
      </Stack>
    </Disclosure>
  );
}
