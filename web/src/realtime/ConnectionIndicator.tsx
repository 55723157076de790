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

/** Lists that follow the channel row by row. */
const LISTS: readonly unknown[] = [
  KEYS.devices,
  KEYS.statuses,
  KEYS.releases,
  KEYS.halts,
  KEYS.alerts,
  KEYS.allOfDevices,
].map(([name]) => name);

/** How fresh the page is. A click shows details. */
export function ConnectionIndicator() {
  const cache = useQueryClient();
  const { channel, pollSeconds } = useConnection();
  const loading = useIsFetching() > 0;
  // The timer renders this every second, which is also when it reads the cache.
  const now = useNow();
  // What the page shows now; what is loaded once for all does not count.
  const shownNow = cache.getQueryCache().findAll({ type: "active" }).filter(({ meta, queryKey }) =>
    meta?.tables !== undefined || LISTS.includes(queryKey[0])
  );
  const readAt = Math.max(0, ...shownNow.map(({ state }) => state.dataUpdatedAt));
  // Both are times of this machine's clock; `now` is the server's.
  const age = readAt === 0 ? 0 : Math.max(0, Date.now() - readAt);
  const failing = shownNow.some(({ state }) => state.fetchFailureCount > 0 || state.status === "error");
  const shown = connectionStatus(
    { channel, readAt: readAt === 0 ? 0 : now - age, failing, pollSeconds },
    now,
  );
  return (
    <Disclosure
      label={`${shown.word}: connection status`}
      button={
        <span data-connection={shown.word} data-loading={loading}>
          <StatusText tone={shown.tone} icon={ICONS[shown.word]}>{shown.word}</StatusText>
        </span>
      }
    >
      <Stack gap="sm">
        <Text size="sm">{shown.sentence}</Text>
        <Text size="sm" className={soft}>
          {readAt === 0 ? "Nothing loaded yet." : `Last loaded ${span(age)} ago.`}
        </Text>
        <Button variant="default" loading={loading} onClick={() => void cache.invalidateQueries()}>
          Refresh now
        </Button>
      </Stack>
    </Disclosure>
  );
}
