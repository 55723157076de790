/** Why a device is in safe mode, and the two ways out. */
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
  const [confirming, setConfirming] = useState(false);
  const [sent, setSent] = useState(false);
  const { id, name } = device;
  return (
    <Alert
      color="red"
      variant="light"
      icon={<Icon name="shield" />}
      title={mode.beside
        ? `Safe mode; ${mode.beside} is still running`
        : "Safe mode: only the status page is running"}
      data-testid="safe-mode"
    >
      <Stack gap="xs" align="flex-start">
        <Text size="sm" style={{ overflowWrap: "anywhere" }}>
          {mode.reason} {mode.kind && <code>{mode.kind}</code>}
        </Text>
        <Text size="sm" fw={600}>How to leave safe mode</Text>
        <List size="sm" type="ordered">
          <List.Item>
            Give it a working release by a rollout or a pin. It still updates, and leaves safe mode on its
            own.
          </List.Item>
          <List.Item>
            If the cause is gone, send the command to leave. It starts the last release it committed, and
            returns to safe mode if that is not healthy.
          </List.Item>
        </List>
        {sent && <Text size="sm" role="status">Command sent. The device runs it at its next check-in.</Text>}
        {mayOperate && !sent && (
          <Button
            size="compact-sm"
            variant="default"
            onClick={() => setConfirming(true)}
          >
            Leave safe mode
          </Button>
        )}
      </Stack>
      {confirming && (
        <ConfirmWithReason
          title={`Leave safe mode on ${name}?`}
          action="Leave safe mode"
          run={async () => {
            await leaveSafeMode(client, id);
            setSent(true);
          }}
          close={() => setConfirming(false)}
        >
          <Text size="sm">
            {name}{" "}
            starts the last release it committed and checks its health. If that fails, it returns to safe mode
            and reports why.
          </Text>
        </ConfirmWithReason>
      )}
    </Alert>
  );
}
