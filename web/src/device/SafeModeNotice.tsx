/** Why a device is in safe mode, and the two ways out of it. */
import { Alert, Button, List, Stack, Text } from "@mantine/core";
import { useState } from "react";
import { useClient } from "../auth/session.tsx";
import { ConfirmWithReason } from "../components/ConfirmWithReason.tsx";
import { Icon } from "../components/Icon.tsx";
import { leaveSafeMode } from "./actions.ts";
import type { SafeMode } from "./safeMode.ts";

interface Props {
  mode: SafeMode;
  device: { id: string; name: string };
  mayOperate: boolean;
}

export function SafeModeNotice({ mode, device, mayOperate }: Props) {
  const client = useClient();
  const [asking, setAsking] = useState(false);
  const [told, setTold] = useState(false);
  const { id, name } = device;
  return (
    <Alert
      color="red"
      variant="light"
      icon={<Icon name="shield" />}
      title={mode.beside
        ? `In safe mode, beside ${mode.beside}, which keeps running`
        : "In safe mode: only its status page runs"}
      data-testid="safe-mode"
    >
      <Stack gap="xs" align="flex-start">
        <Text size="sm" style={{ overflowWrap: "anywhere" }}>
          {mode.reason} {mode.kind && <code>{mode.kind}</code>}
        </Text>
        <Text size="sm" fw={600}>The way out</Text>
        <List size="sm" type="ordered">
          <List.Item>
            Offer it a release that works, by a rollout or a pin: it still updates, and leaves by itself.
          </List.Item>
          <List.Item>
            Where the cause is gone, tell it to leave: it starts what it committed last, and stays here where
            that is not healthy.
          </List.Item>
        </List>
        {told && <Text size="sm" role="status">It was told to leave, and does so at its next check-in.</Text>}
        {mayOperate && !told && (
          <Button size="compact-sm" variant="default" onClick={() => setAsking(true)}>
            Leave safe mode
          </Button>
        )}
      </Stack>
      {asking && (
        <ConfirmWithReason
          title={`Let ${name} leave safe mode?`}
          action={`Tell ${name} to leave`}
          run={async () => {
            await leaveSafeMode(client, id);
            setTold(true);
          }}
          close={() => setAsking(false)}
        >
          <Text size="sm">
            It starts the release that it committed last and proves it healthy. Where that fails, it stays in
            safe mode and says why.
          </Text>
        </ConfirmWithReason>
      )}
    </Alert>
  );
}
