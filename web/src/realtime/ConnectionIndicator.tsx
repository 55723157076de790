import { Button, Stack, Text } from "@mantine/core";
import { useIsFetching, useQueryClient } from "@tanstack/react-query";
import { KEYS } from "../fleet/useFleet.ts";
import type { IconName } from "../components/Icon.tsx";
import { Disclosure } from "../components/Disclosure.tsx";
import { span } from "../format/time.ts";
import { Toned } from "../components/StatusText.tsx";
import { type LinkShown, linkShown } from "./connectionStatus.ts";
import { useLink } from "./RealtimeProvider.tsx";
import { useNow } from "../components/useNow.ts";

const ICONS: Record<LinkShown["word"], IconName> = {
  Live: "check",
  Connecting: "hourglass",
  Polling: "clock",
  Stale: "triangle",
};

/** How fresh the page is. Pressing it says more. */
export function LinkIndicator() {
  const cache = useQueryClient();
  const { channel, pollSeconds } = useLink();
  const reading = useIsFetching() > 0;
  // The ticker renders this every second, which is also when it looks at the cache.
  const now = useNow();
  const statuses = cache.getQueryState(KEYS.statuses);
  const readAt = statuses?.dataUpdatedAt ?? 0;
  // Both are times of this machine's clock; the ticker's is the server's.
  const age = readAt === 0 ? 0 : Math.max(0, Date.now() - readAt);
  const failing = (statuses?.fetchFailureCount ?? 0) > 0 || statuses?.status === "error";
  const shown = linkShown({ channel, readAt: readAt === 0 ? 0 : now - age, failing, pollSeconds }, now);
  return (
    <Disclosure
      label={`${shown.word}: how fresh this page is`}
      button={
        <span data-link={shown.word} data-reading={reading}>
          <Toned tone={shown.tone} icon={ICONS[shown.word]}>{shown.word}</Toned>
        </span>
      }
    >
      <Stack gap="sm">
        <Text size="sm">{shown.sentence}</Text>
        <Text size="sm" className="soft">
          {readAt === 0 ? "Nothing was read yet." : `Everything was read ${span(age)} ago.`}
        </Text>
        <Button variant="default" loading={reading} onClick={() => void cache.invalidateQueries()}>
          Read everything now
        </Button>
      </Stack>
    </Disclosure>
  );
}
